"""The judge of the demo's pictures: do they show the coats and hats of their prompts?

stage.py     the stage: prompts, pictures, score
colours.py   the colours of coat and hat, measured from a picture's pixels
"""
