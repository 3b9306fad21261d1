"""The lake: where the files are, local or remote (any fsspec URL), one folder per dataset.

lake.py           a dataset's folder: reading, publishing whole files, scratch folders, one writer
disk.py           a local disk: its errors as ours, and which process made a scratch folder
object_store.py   S3: opening it, and its failures as our errors
locks.py          one writer at a time;  lease.py the same on an object store
links.py          links are not followed out of a dataset
local_copies.py   copies of a remote lake's files on this machine
"""

from sp_data.lake.disk import disk_errors, is_alive
from sp_data.lake.lake import (
    DEFAULT_LAKE,
    LAKE_VARIABLE,
    NUM_AT_ONCE,
    FileEntry,
    Lake,
    datasets,
    is_dataset_name,
    is_temporary,
)
from sp_data.lake.links import files_below

__all__ = [
    "DEFAULT_LAKE",
    "LAKE_VARIABLE",
    "NUM_AT_ONCE",
    "FileEntry",
    "Lake",
    "datasets",
    "disk_errors",
    "files_below",
    "is_alive",
    "is_dataset_name",
    "is_temporary",
]
