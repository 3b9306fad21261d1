"""Curate: which pictures are kept, in which split, and why the others are not.

stage.py         the stage: opt-outs, duplicates
splits.py        train, val or test, by page
tables.py        its two tables, kept and dropped
readings.py      reads each picture, once
decoding.py      opens one picture, within limits;  pictures.py  reads and hashes it
normal_form.py   upright, 8-bit RGB, over white
png.py, icc.py   checks of a PNG that Pillow does not make; colour profiles
duplicates.py    near-duplicates by perceptual hash
boilerplate.py   captions that say nothing about their picture
"""
