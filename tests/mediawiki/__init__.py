"""A real MediaWiki on loopback that answers like a Fandom wiki, for tests. See README.md."""
