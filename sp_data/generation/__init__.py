"""Pictures from words; each PNG records how it was made.

dream.py     words -> picture
models.py    the models, loaded from a dataset's checkpoints
noise.py     noise that depends on a picture's own seed
gallery.py   prompt, picture, and the nearest training picture
search.py    a dataset's pictures nearest to a vector;  search_index.py and search_index_worker.py its index in the lake
explain.py   where a picture came from
serve_search.py  clip-retrieval's server over a dataset
"""
