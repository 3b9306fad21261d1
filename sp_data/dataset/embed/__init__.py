"""Embed: a row of CLIP for each picture and each caption.

stage.py               the stage: new shards only, checked
folder.py              where embeddings lie, named by what they are made of
clip.py                loading a CLIP;  precision.py in which numbers it computes
clip_retrieval.py      clip-retrieval's reader, mapper and writer
distributed.py         clip-retrieval's own command on other machines;  distributed_worker.py its process
"""
