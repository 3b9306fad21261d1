"""Reading a list of addresses, whoever wrote it: every cell as text, or the list is refused with line and cure.

text.py      bytes -> lines: the encoding is decided by the file's mark or by the recipe, never guessed
tables.py    .csv and .tsv -> rows of cells;  parquet.py  the same for .parquet
columns.py   which of the columns hold addresses, captions and licences
"""
