"""A MediaWiki (Fandom's above all), read politely: its pictures, their original bytes, and what it says of them.

http/              asking: politeness, HTTP, the API, what is asked of it, the journal of a run under way
parse/             reading: titles, wikitext, HTML, file pages
captions/          every caption a picture could have, and the one it gets

scrape.py            the stage: the facts, the originals, the catalogue, what is remembered
incremental.py       whether to gather everything, ask for what changed, or stop after one request
scrape_addresses.py  the stage for a list of addresses (addresses.py)

What there is
facts.py       what a wiki said, as far as the catalogue depends on it
gather.py      all of it, the first time;  files.py its files, pages.py its articles
changes.py     what changed since then, in one request
update.py      the facts after that
state.py       what is kept for the next run

What is made
originals.py   the bytes, each once, checked against the wiki's size and sha1
forgotten.py   what somebody asked to be taken out, which is never fetched again
rows.py        facts -> rows
catalogue.py   one row a file;  tombstones.py what is gone
publish.py     rows -> manifest
"""
