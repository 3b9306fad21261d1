"""Requests to a wiki.

politeness.py  when to ask, and whether at all: pace, robots.txt, private addresses
retries.py     which requests are sent again, and after how long
transport.py   HTTP: one session, one request at a time, one sentence for each failure
api.py         one query to api.php, repeated until it is answered;  client.py the queries
greeting.py    what the first one asks of a wiki about itself, and which versions are too old
xml_export.py  500 pages' wikitext in one answer
journal.py     the answers of an unfinished run
"""
