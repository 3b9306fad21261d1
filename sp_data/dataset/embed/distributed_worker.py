"""The process of clip-retrieval's own command: `python -m sp_data.dataset.embed.distributed_worker ARGUMENTS.json`.

The file holds the keyword arguments of one call of clip-retrieval's inference `main`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sp_data.runtime.subprocesses import die_with_parent

if __name__ in ("__main__", "__mp_main__"):
    # clip-retrieval starts a process that counts, and that waits for the others forever.
    die_with_parent()


def main(arguments: Path) -> None:
    # Imported here, not above: the processes that clip-retrieval starts import this module too, and do not need it.
    from clip_retrieval.clip_inference.main import main as inference

    from sp_data.dataset.embed.clip_weights import use_safe_loaders

    use_safe_loaders()
    inference(**json.loads(arguments.read_text()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
