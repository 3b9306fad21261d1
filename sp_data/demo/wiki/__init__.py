"""The made-up wiki: its pages and files as data, and a server that speaks the part of MediaWiki's API that is used.

world.py        the wiki as data;  history.py what changes week by week;  awkward.py files as real wikis have them
wikitext.py     the texts of its pages;  pages.py what is read from them;  titles.py MediaWiki's rules for titles
server.py       serves it;  api.py api.php's answers: listings.py, properties.py, changes.py, siteinfo.py,
                magic_words.py, xml_export.py
render.py       pages as HTML;  site.py pages for a browser
"""
