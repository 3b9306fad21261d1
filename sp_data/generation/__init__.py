"""Pictures from words, with what made them written inside.

dream.py     words -> picture
models.py    the models that draw, from a dataset's checkpoints
noise.py     a picture's noise comes from its own seed
gallery.py   prompt, picture, and the training picture that lies nearest
"""
