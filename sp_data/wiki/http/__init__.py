"""Asking a wiki.

politeness.py  when to ask, how often, and whether at all: pace, retries, robots.txt, private addresses
transport.py   HTTP: one session, one request at a time, failures told in one sentence
api.py         one question to api.php, until it is answered;  client.py what is asked
xml_export.py  500 pages' wikitext in one answer
journal.py     the answers of a run under way
"""
