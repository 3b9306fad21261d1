"""Shards: kept pictures as webdataset tars.

stage.py               the stage: what stays, what is new, tombstones
plan.py                which picture goes into which shard
img2dataset.py         one run of img2dataset;  img2dataset_worker.py its process
tars.py                reads shards, and rewrites them so that equal inputs give equal bytes
find.py                finds pictures in the shards
"""
