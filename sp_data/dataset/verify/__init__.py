"""Verify: every joint of the dataset, so that a wrong pairing is an error with a name and never a worse model.

stage.py           the stage, and the dataset manifest
options.py         how much a verification looks at
context.py         what the checks see, and the problems so far
shard_checks.py    the joints of one shard;  dataset_checks.py of all of them
reembed.py         pictures from the tars, embedded again
close_pairs.py     pictures that a CLIP finds nearly the same
"""

from sp_data.dataset.verify.options import VerifyOptions

__all__ = ["VerifyOptions"]
