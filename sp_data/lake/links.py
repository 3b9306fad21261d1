"""Links in a local lake: a dataset may be a stranger's, so none is followed out of its folder.

The dataset's own folder, and those above it, may be links: the person named them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


class Links:
    """Tells the paths of a dataset's folder that lead out of it by a link; folders that do not are remembered."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._plain: set[str] = set()

    def leading_out(self, parts: tuple[str, ...]) -> str | None:
        """The link by which a path, given by its parts below the root, leads out of the dataset; None if none does."""
        path = self._root
        for depth, part in enumerate(parts, start=1):
            path = f"{path}/{part}"
            if path in self._plain:
                continue
            try:
                is_link = Path(path).is_symlink()
            except ValueError:  # no file has such a name
                return None
            if is_link and not Path(path).resolve().is_relative_to(Path(self._root).resolve()):
                return path
            if depth < len(parts) and not is_link and Path(path).is_dir():
                self._plain.add(path)
        return None


def files_below(folder: Path, name: str) -> Iterator[tuple[str, int]]:
    """(path, bytes) of each file below a folder, at any depth; `name` is the folder's path in the lake. Links are left
    out, and nothing is listed of a folder that is not there."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        path = f"{name}/{entry.name}" if name else entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from files_below(Path(entry.path), path)
        elif entry.is_file(follow_symlinks=False):
            try:
                yield path, entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:  # removed meanwhile
                continue
