"""The child process that runs clip-retrieval's `index`: EMBEDDINGS OUTPUT MEMORY, see search_index.py."""

from __future__ import annotations

import sys

from sp_data.generation.search_index import clip_retrieval_module
from sp_data.runtime.subprocesses import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    embeddings, output, memory = sys.argv[1:]
    clip_retrieval_module("clip_index").clip_index(
        embeddings, output, max_index_memory_usage=memory, copy_metadata=False
    )
