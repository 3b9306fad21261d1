"""Reorder: put the embeddings in the order that the pictures have inside the shards.

    reorder_folder(embeddings, metadata, output)      any output of clip-retrieval, without a lake

stage.py         the stage, for a dataset in the lake
folder.py        the same for any output folder of clip-retrieval
plan.py          where each row goes;  gather.py moves the rows
partitions.py    clip-retrieval's output on disk
layout.py        which digits of the keys name the shard, in a folder that someone else made
"""

from sp_data.dataset.reorder.folder import reorder_folder

__all__ = ["reorder_folder"]
