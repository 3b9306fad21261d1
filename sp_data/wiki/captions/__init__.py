"""Captions.

candidates.py  every caption a picture could have, ranked
choose.py      the one it gets, by the recipe's templates, and variants
clip_length.py no longer than a CLIP reads
"""
