"""The fixture wiki by hand: `python -m mediawiki up --root /tmp/wiki --sample 80`, from the folder `tests`."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from mediawiki.sample import sample_ops
from mediawiki.wiki import MediaWiki, Op, file_ops, folder_ops


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mediawiki", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, about in (
        ("up", "install and start"),
        ("load", "upload pictures and write pages"),
        ("down", "stop"),
        ("faults", "misbehave (README.md)"),
        ("log", "count the requests so far"),
        ("siteinfo", "print what it tells of its language, for tests/data/siteinfo"),
    ):
        command = commands.add_parser(name, help=about)
        command.add_argument("--root", type=Path, required=True, help="the wiki's folder")
        match name:
            case "up":
                command.add_argument("--port", type=int, default=0, help="0: a free one")
                command.add_argument("--sample", type=int, metavar="N", help="load the sample with N kids")
                command.add_argument("--language", default="en", help="the wiki's language, e.g. zh-hans")
            case "load":
                command.add_argument("--images", type=Path, action="append", default=[], help="a folder")
                command.add_argument("--pages", type=Path, action="append", default=[], help="JSON lines")
            case "down":
                command.add_argument("--purge", action="store_true", help="remove the wiki too")
            case "faults":
                command.add_argument("faults", help="a JSON object; {} to behave")
    args = parser.parse_args()
    wiki = MediaWiki(args.root, getattr(args, "port", 0), language=getattr(args, "language", "en"))
    match args.command:
        case "up":
            wiki.up()
            if args.sample:
                wiki.apply(sample_ops(args.root / "sample", args.sample))
            print(wiki.url)
        case "load":
            ops: list[Op] = [op for folder in args.images for op in folder_ops(folder)]
            wiki.apply(ops + [op for path in args.pages for op in file_ops(path)])
        case "siteinfo":
            print(json.dumps(wiki.siteinfo(), ensure_ascii=False, sort_keys=True))
        case "down":
            wiki.down(purge=args.purge)
        case "faults":
            wiki.faults(**json.loads(args.faults))
        case "log":
            accesses = wiki.log()
            kinds = Counter(access.kind for access in accesses)
            sizes = {kind: sum(access.bytes for access in accesses if access.kind == kind) for kind in kinds}
            print(json.dumps({"requests": len(accesses), "by_kind": kinds, "bytes": sizes}))


main()
