"""A MediaWiki (above all Fandom's), read politely: its pictures, their original bytes, and what its pages say of them.

http/              requests: politeness, HTTP, the API, what is asked, the journal of the current run
parse/             parsing: titles, wikitext, HTML, file pages
lists/             reading a list of addresses, whoever wrote it
captions/          every caption a picture could have, and the one it gets

scrape.py            the stage: the facts, the originals, the catalogue, the state for the next run
incremental.py       whether to list everything, ask for what changed, or stop after one request
scrape_addresses.py  the stage for a list of addresses (addresses.py, lists/), which fetch_addresses.py fetches

Facts
facts.py       what a wiki said, as far as the catalogue depends on it
gather.py      all of it, the first time;  files.py its files, pages.py its articles
changes.py     what changed since then, in one request
update.py      the facts after these changes
state.py       what is saved for the next run;  list_state.py the same of a list

Results
originals.py   the bytes, each fetched once and checked against the wiki's size and sha1
refusals.py    why a picture did not come, and when it is asked for again
download.py    a body into a file;  picture_type.py what kind of picture that is
forgotten.py   what somebody asked to have removed; it is never fetched again
rows.py        facts -> rows
catalogue.py   one row a file;  tombstones.py the files that are gone
publish.py     rows -> manifest
"""
