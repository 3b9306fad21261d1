"""Looking after a dataset.

why.py                what became of each file
forget.py             take pictures out for good;  forget_imported.py the same in an import
compact.py            new shards for what lives in half-dead, forgotten or tiny ones
collect_garbage.py    what no snapshot and no checkpoint names any more
titles.py             the title that a person means
"""
