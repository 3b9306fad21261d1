"""What a training takes of a device's memory, and what the device has; nothing here allocates a weight.

estimate.py        the peak of a step, by fake tensors, and the largest micro-batch that fits
cuda_autocast.py   a CUDA device's autocast for fake tensors on the CPU
free.py            what a device, this machine or its container has left
micro_batch.py     a job's step estimated, and the micro-batch that it is trained with
"""
