"""Captions.

candidates.py   every caption a picture could have, ranked
choose.py      the one it gets, and variants;  templates.py captions made of infobox fields
clip_length.py  captions cut to what CLIP reads
"""
