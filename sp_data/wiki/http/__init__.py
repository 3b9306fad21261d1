"""Requests to a wiki.

politeness.py  when to ask, and whether at all: pace, robots.txt
guard.py       which hosts are connected to: none of a private network, unless the recipe says so
connections.py connections that the guard let pass, answers that keep coming
retries.py     which requests are sent again, and after how long
transport.py   HTTP: one session, one request at a time;  failures.py one sentence for each failure
answers.py     JSON read with suspicion;  listing.py a listing that must bring something new
api_path.py    where the API may be
api.py         one query to api.php, repeated until it is answered;  client.py the queries
greeting.py    what the first one asks of a wiki about itself, and which versions are too old
xml_export.py  500 pages' wikitext in one answer
journal.py     the answers of an unfinished run
"""
