"""The page: draw, look through the dataset, and look at the trainings, in a browser.

server.py        where it listens, who may use it
guard.py         hosts, password, limits of what is sent, Content-Security-Policy
app.py           the page as a whole: header, tabs, theme
wiring.py        what the tabs share: which checkpoints draw, how a drawing reaches the page
dream.py  variation.py  inpaint.py  dataset.py  runs.py      a tab each
fields.py        fields that take whatever a browser sends
settings.py      the sliders below a drawing's words
drawing.py       a drawing as a stream of moments;  turns.py one at a time, in order
state.py         loaded models and search index, shared by all visitors
checkpoints.py   what there is to draw with, without torch
pictures.py      uploads and masks;  uploads.py how much they may fill
markup.py        HTML of pictures; static/ how it looks, and what its buttons do
lake_files.py    /lake/generated/NAME.png, /lake/reports/NAME.html, …

Made with Gradio. Nothing but server.py and app.py's callers may import it before it is needed: it takes seconds.
"""
