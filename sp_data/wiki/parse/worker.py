"""`python -m sp_data.wiki.parse.worker`: the child in which bounded.py has foreign text read."""

from __future__ import annotations

import json
import pickle
from functools import lru_cache
from typing import Any

from sp_data.runtime.bounded import serve
from sp_data.wiki.parse import file_page, wikitext
from sp_data.wiki.parse.titles import Namespaces


def _answer(request: Any) -> bytes:
    kind, spaces, arguments = request
    match kind:
        case "wikitext":
            text, title, page_id, revision = arguments
            read: object = wikitext.read(text, title, page_id, revision, _spaces(spaces))
        case "file page":
            (text,) = arguments
            read = file_page.read(text, _spaces(spaces))
        case "html":
            from sp_data.wiki.parse import html  # slow to import, and most sources read no HTML

            text, title, page_id, revision = arguments
            read = html.read(text, title, page_id, revision)
        case _:
            raise ValueError(f"no reader for {kind}")
    # Half a surrogate pair, as &#xD800; gives, can be written nowhere.
    return json.dumps(read, default=_fields, ensure_ascii=False).encode("utf-8", "replace")


@lru_cache(maxsize=1)
def _spaces(pickled: bytes) -> Namespaces:
    spaces: Namespaces = pickle.loads(pickled)
    return spaces


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


if __name__ == "__main__":
    serve(_answer)
