"""Import: someone's own img2dataset folder and clip-retrieval embeddings -> a dataset, verified.

run.py                   the import
img2dataset_folder.py    the folder as it lies on disk
importer.py              shard after shard into the lake, then the manifests
rows.py                  rows of our tables from theirs
"""
