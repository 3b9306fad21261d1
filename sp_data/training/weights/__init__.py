"""Weights that a training begins with, and weights for others: dalle2-pytorch's files in and out of the lake.

read.py      a .pth or .safetensors -> the networks in it, unpickled by nobody
legacy.py    weights of dalle2-pytorch 1.0 under today's names, and back
patch.py     today's modules made to compute what 1.0 computed
fill.py      weights into a model, strictly
adopt.py     a network of any file or checkpoint as `weights/<name>/` of the lake
laion.py     where LAION's prior, decoder and upsampler are, and how they come here
export.py    one .pth that dalle2-pytorch and dalle2-laion load
"""
