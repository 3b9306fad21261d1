"""clip-retrieval's reader, mapper and writer, without the rest of the package.

`import clip_retrieval` also loads a web server, faiss, wandb and sentence-transformers, which takes as long again as
torch and CLIP. The three modules use only the latter.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

MULTILINGUAL = "sentence_transformers"
"""The mapper imports it for mCLIP, which is never used here."""


@functools.cache
def module(name: str) -> Any:
    """clip_retrieval.clip_inference.NAME ("reader", "mapper", "writer"), from its file. Raises ImportError."""
    full_name = f"clip_retrieval.clip_inference.{name}"
    if full_name in sys.modules:
        return sys.modules[full_name]
    package = importlib.util.find_spec("clip_retrieval")
    if package is None or not package.submodule_search_locations:
        raise ImportError("clip_retrieval is not installed", name="clip_retrieval")
    file = Path(package.submodule_search_locations[0]) / "clip_inference" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(full_name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a module", name=full_name)
    loaded = importlib.util.module_from_spec(spec)
    with _without_multilingual():
        spec.loader.exec_module(loaded)
    return loaded


@contextlib.contextmanager
def _without_multilingual() -> Iterator[None]:
    if MULTILINGUAL in sys.modules:
        yield
        return
    empty = ModuleType(MULTILINGUAL)
    vars(empty)["SentenceTransformer"] = None
    sys.modules[MULTILINGUAL] = empty
    try:
        yield
    finally:
        del sys.modules[MULTILINGUAL]
