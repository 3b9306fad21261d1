"""Curate: which pictures are kept, in which split, and why the others are not.

stage.py         the stage: opt-outs, duplicates, splits
tables.py        its two tables, kept and dropped
readings.py      what is read of each picture, once
pictures.py      one picture: within limits, in normal form;  normal_form.py upright, 8-bit RGB, over white
png.py, icc.py   what Pillow does not ask of a PNG; colour profiles
duplicates.py    near-duplicates by perceptual hash
boilerplate.py   captions that say nothing
"""
