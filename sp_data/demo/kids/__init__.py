"""Who the paper-cutout kids are, and how they are drawn.

kid.py       names and attributes
artist.py    a kid as layers of cut paper;  scenery.py the place behind
phrases.py   what can be said of a kid
"""
