"""The samples of a verified dataset, one by one and in any order, as training reads them.

    with Samples(verified, lake, "train", image_size_px=64) as samples: ...

samples.py       the samples of a split, over all its shards
open_shard.py    one shard, open
tar_index.py     where each sample lies in its tar
"""

from sp_data.dataset.loader.samples import Samples

__all__ = ["Samples"]
