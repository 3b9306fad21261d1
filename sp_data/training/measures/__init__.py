"""How good a model is: figures from arrays, without a file, a model or a download.

embeddings.py   what every figure takes: rows of a CLIP's space
prior.py        a predicted embedding beside the picture's, against three baselines
decoder.py      every figure of drawn pictures, in one dictionary
cmmd.py         the distance between two sets of pictures
neighbours.py   the nearest training picture, and whether pictures are memorised
overfitting.py  since which step a training over-fits
fid.py          FID and KID, where their weights are on this machine
"""
