"""The made-up wiki: pages and files as data, and a server that speaks the part of MediaWiki's API that is used.

world.py        the wiki as data;  history.py what changes week by week;  awkward.py files as real wikis have them
wikitext.py     what its pages say;  pages.py what follows from it;  titles.py MediaWiki's rules for titles
server.py       serves it;  api.py api.php's answers: listings.py, properties.py, changes.py, siteinfo.py, xml_export.py
render.py       pages as HTML;  site.py what a browser shows
"""
