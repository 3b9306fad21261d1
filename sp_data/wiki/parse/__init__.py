"""Parsers of a wiki's text; nothing here makes a request.

titles.py      one normal form for the many spellings of a file name, by the wiki's own namespaces and rules
words.py       the wiki's own magic words and messages;  variants.py its scripts
page.py        what a page shows and says;  wikitext.py reads it from wikitext, html.py from HTML
file_page.py   the page of a file: licence, templates, summary
plaintext.py   wikitext -> words
bounded.py     all of these within a time, in a child (worker.py): what a scrape calls
"""
