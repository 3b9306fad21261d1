"""Training: dalle2-pytorch's prior and decoder, in a loop that can be killed at any time and resumed.

stage.py         prior and decoder as stages;  worker.py the child process that trains
loop.py          the training loop
task.py          what the loop trains;  prior.py and decoder.py the two tasks
models.py        a recipe -> dalle2-pytorch's models
sampler.py       the order of the samples;  seeds.py randomness as a function of its purpose
checkpoints.py   checkpoints: saving, restoring, and how many are kept
metrics.py       metrics.jsonl
trained.py       which dataset each checkpoint was trained on
words.py         text encodings, one vector per word
"""
