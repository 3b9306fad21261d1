"""Embed: a CLIP embedding for each picture and each caption.

stage.py               the stage: new shards only, checked
folder.py              the folder of embeddings, named by what they are made of
clip.py                loads a CLIP;  precision.py float32 or bfloat16
clip_retrieval.py      clip-retrieval's reader, mapper and writer
distributed.py         clip-retrieval's own command on other machines;  distributed_worker.py its process
"""
