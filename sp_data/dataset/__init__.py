"""From originals to a verified dataset, a folder a stage, and the loader that trainings read it with.

curate/    what is kept, in which split, and why the rest is not
shards/    webdataset tars (img2dataset)
embed/     CLIP embeddings (clip-retrieval)
reorder/   the embeddings in the order of the pictures
verify/    every joint checked
loader/    the samples of a verified dataset
"""
