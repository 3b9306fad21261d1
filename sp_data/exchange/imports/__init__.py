"""Import: make a verified dataset of someone's own img2dataset folder and clip-retrieval embeddings.

run.py                   the import
img2dataset_folder.py    reads the folder
importer.py              writes shard after shard into the lake, then the manifests
rows.py                  makes rows of our tables from rows of theirs
"""
