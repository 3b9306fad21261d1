"""Verify: check every joint of the dataset, so that a wrong pairing is a named error and not a worse model.

stage.py           the stage, and the dataset manifest
options.py         how much a verification checks
context.py         what the checks read, and the problems so far
shard_checks.py    the checks of one shard;  dataset_checks.py those of the whole dataset
reembed.py         embeds pictures from the tars again
close_pairs.py     lists pictures that a CLIP finds nearly the same
"""

from sp_data.dataset.verify.options import VerifyOptions

__all__ = ["VerifyOptions"]
