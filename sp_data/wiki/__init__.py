"""A MediaWiki (Fandom's above all), read politely: its pictures, their original bytes, and what it says of them.

scrape.py      the stage: the facts, the originals, the catalogue, what is remembered
look.py        whether to gather everything, ask for what changed, or stop after one request
listed.py      the same for a list of addresses (addresses.py)

Asking
manners.py     when to ask, how often, and whether at all: pace, retries, robots.txt, private addresses
transport.py   HTTP: one session, one request at a time, failures told in one sentence
api.py         one question, until it is answered;  client.py what is asked
exported.py    500 pages' wikitext in one answer
journal.py     the answers of a run under way

What there is
facts.py       what a wiki said, as far as the catalogue depends on it
gather.py      all of it, the first time;  listing.py its files, pages.py its articles
changes.py     what changed since then, in one request
update.py      the facts after that
memory.py      what is kept for the next run

What it means
titles.py      the many spellings of one file name
plaintext.py   wikitext -> words
wikitext.py    wikitext -> what a page shows and says;  rendered.py the same from HTML
filepage.py    a file's own page: licence, templates, summary
captions.py    every caption a picture could have, ranked
chosen.py      the one it gets, and variants;  clip_length.py no longer than a CLIP reads

What is made
originals.py   the bytes, each once, checked against the wiki's size and sha1
forgotten.py   what somebody asked to be taken out, which is never fetched again
rows.py        facts -> rows
catalogue.py   one row a file;  tombstones.py what is gone
publishing.py  rows -> manifest
"""
