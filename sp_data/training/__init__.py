"""Training: dalle2-pytorch's prior and decoder in a loop that can be killed anywhere and goes on where it was.

stage.py         prior and decoder as stages;  worker.py the child process that trains
loop.py          one step after the other
task.py          what the loop trains;  prior.py and decoder.py the two there are
models.py        a recipe -> dalle2-pytorch's models
sampler.py       in which order samples come;  seeds.py randomness as a function of what it is for
checkpoints.py   all that a killed training needs to go on, and how many of them stay
metrics.py       metrics.jsonl
trained.py       which dataset each checkpoint was trained on
words.py         text encodings
"""
