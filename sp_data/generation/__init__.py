"""Pictures from words; each PNG records how it was made.

dream.py     words -> picture
models.py    the models, loaded from a dataset's checkpoints
noise.py     noise that depends on a picture's own seed
gallery.py   prompt, picture, and the nearest training picture
"""
