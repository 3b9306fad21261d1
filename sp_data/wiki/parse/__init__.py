"""Parsers of a wiki's text; nothing here makes a request.

titles.py      one normal form for the many spellings of a file name
page.py        what a page shows and says;  wikitext.py reads it from wikitext, html.py from HTML
file_page.py   the page of a file: licence, templates, summary
plaintext.py   wikitext -> words
"""
