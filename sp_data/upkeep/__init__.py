"""Looking after a dataset.

why.py                what became of each file
forget.py             take pictures out for good;  forget_imported.py the same in an imported dataset
compact.py            new shards for pictures in half-dead, forgotten or tiny ones
collect_garbage.py    remove what no snapshot and no checkpoint names any more
titles.py             find the title that a person means
"""
