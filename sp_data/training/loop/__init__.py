"""The training loop, and the parts of which it is made.

loop.py             step after step, with a checkpoint every `save_every` steps
sampler.py          the order of the samples, and which process takes which
optimizer.py        AdamW and its learning rate
average.py          averaged weights (EMA), which generate
metrics.py          metrics.jsonl, a line every `log_every` steps
early_stopping.py   whether the validation loss has stopped falling
"""
