"""The judge of the demo's pictures: do they show the coats and hats that were asked for?

stage.py     the stage: questions, pictures, score
colours.py   the colours of coat and hat, measured from a picture's pixels
"""
