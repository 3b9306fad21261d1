"""The samples of a verified dataset, one by one and in any order: what trainings read.

    with Samples(verified, lake, "train", image_size_px=64) as samples: ...

samples.py       all shards of a split
open_shard.py    one shard, open
tar_index.py     where each sample lies in its tar
"""

from sp_data.dataset.loader.samples import Samples

__all__ = ["Samples"]
