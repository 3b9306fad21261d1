"""Captions.

candidates.py   every caption a picture could have, ranked
choose.py       the one it gets, by the recipe's templates, and variants of it
clip_length.py  captions cut to what CLIP reads
"""
