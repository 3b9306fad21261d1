"""A MediaWiki (Fandom's above all), read politely: its pictures, their original bytes, and what it says of them.

manners.py    when to ask, how often, and whether at all: pace, retries, robots.txt, private addresses
transport.py  HTTP: one session, one request at a time, failures told in one sentence
client.py     the API: `continue` merged, errors told apart, a busy wiki waited for
titles.py     the many spellings of one file name
listing.py    which files, with size, sha1, type and categories
pages.py      the articles and the file pages, as they are read
plaintext.py  wikitext -> words
wikitext.py   wikitext -> what a page shows and says
rendered.py   HTML -> the same, where the wikitext does not tell
filepage.py   a file's own page: licence, templates, summary
captions.py   every caption a picture could have, ranked, and the one it gets
originals.py  the bytes, each once, checked against the wiki's size and sha1
catalogue.py  one row a file
scrape.py     the stage: all of it in order
"""
