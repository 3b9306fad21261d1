"""Who the paper-cutout kids are, and how they are drawn.

kid.py       names and attributes
artist.py    a kid as layers of cut paper;  scenery.py the background
phrases.py   captions for a kid
"""
