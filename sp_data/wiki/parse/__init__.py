"""What the text of a wiki means; nothing here asks the wiki.

titles.py      the many spellings of one file name
page.py        what a page shows and says;  wikitext.py reads it from wikitext, html.py from HTML
file_page.py   a file's own page: licence, templates, summary
plaintext.py   wikitext -> words
"""
