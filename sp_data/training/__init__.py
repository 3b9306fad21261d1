"""Training: dalle2-pytorch's prior and decoder, in a loop that can be killed at any time and resumed.

stage.py         prior and decoder as stages: one network after the other
worker.py        the child process that trains;  launch.py several that train together
job.py           what the parent asks it to train
start.py         the weights that it begins with, and whether they or a checkpoint fit
loop/            the training loop: samples, optimizer, averages, metrics
memory/          what a training takes of a device, and the micro-batch that fits
task.py          what the loop trains;  prior.py and decoder.py the two tasks
models.py        a recipe -> dalle2-pytorch's models;  dalle2.py its import, without what it does not need
switches.py      faster ways to compute the same;  lora.py small matrices beside frozen weights
draws.py         the random numbers of a step;  seeds.py randomness as a function of its purpose
checkpoints.py   checkpoints: saving, restoring, and how many are kept
trained.py       which dataset each checkpoint was trained on;  seen.py which checkpoints saw a picture
words.py         text encodings, one vector per word, kept in the lake
grid.py          the pictures of a run, a row a checkpoint
evaluation.py    the finished decoder, measured;  measures/ the figures
weights/         LAION's and other people's weights, in and out
"""
