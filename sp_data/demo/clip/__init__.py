"""The demo's tiny CLIP.

model/       its weights, as a Hugging Face folder
train.py     how it was trained;  files.py the folder's files;  scores.py how well it understands kids
"""
