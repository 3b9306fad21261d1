"""Run `sp-data train` so that the training stands still at a given moment, to be killed there with SIGKILL.

    python tests/pause.py FOLDER prior:37 train prior quick.yaml --lake …       before step 37, the first being 0
    python tests/pause.py FOLDER "unet 2:save 3:5" train decoder quick.yaml …   in the third save, before it opens,
                                                                                renames, makes or removes its fifth file
    python tests/pause.py FOLDER never train prior quick.yaml …

    FOLDER/reached            made when the moment has come
    FOLDER/keys-0.jsonl       of each process a line for each step: ["unet 2", 37, ["000000003", "000000001", …]]

The real command runs, in the real number of processes; of several the first one stands still, and the others wait for
it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any
from unittest.mock import patch

from sp_data.runtime.subprocesses import die_with_parent

CHILD = "--child"
EVENTS = frozenset(("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"))
"""Audit events; Python raises each just before the operation."""


def stand_still(folder: Path) -> None:
    (folder / "reached").touch()
    while True:
        time.sleep(60)


def command(folder: str, moment: str, arguments: list[str]) -> None:
    """The command, which starts this file as its child instead of the worker."""
    from sp_data import cli
    from sp_data.runtime.subprocesses import python_child

    @contextmanager
    def pausing_child(module: str, job_file: str, **options: Any) -> Iterator[Popen[bytes]]:
        if module != "sp_data.training.worker":
            raise ValueError(f"{module} trains nothing")
        environment: Mapping[str, str] = {**options.pop("environment"), "PYTHONPATH": str(Path(__file__).parent)}
        with python_child("pause", CHILD, folder, moment, job_file, environment=environment, **options) as process:
            yield process

    patch("sp_data.training.stage.python_child", pausing_child).start()
    sys.argv = ["sp-data", *arguments]
    cli.main()


def child(folder: Path, moment: str, job_file: str) -> None:
    """The worker, which notes the keys of each step, and stands still."""
    die_with_parent()
    from sp_data.training import checkpoints, worker
    from sp_data.training.loop.loop import Loop
    from sp_data.training.task import Batch

    name, _, when = moment.partition(":")
    train_step, save = Loop.step, checkpoints.save
    num_saves = 0

    def step(self: Loop, number: int, batch: Batch) -> Any:
        rank = self.accelerator.state.process_index
        with (folder / f"keys-{rank}.jsonl").open("a") as stream:
            stream.write(json.dumps([self.task.name, number, batch["key"]]) + "\n")
        if rank == 0 and (self.task.name, str(number)) == (name, when):
            stand_still(folder)
        return train_step(self, number, batch)

    def pausing_save(lake: Any, checkpoint: Any, *state: Any) -> Any:
        nonlocal num_saves
        num_saves += 1
        is_of = name in ("prior", "decoder") or name == f"unet {checkpoint.unet}"
        if is_of and when.startswith(f"save {num_saves}:"):
            left = int(when.partition(":")[2])

            def count(event: str, _: tuple[object, ...]) -> None:
                nonlocal left
                if event in EVENTS:
                    left -= 1
                    if not left:
                        stand_still(folder)

            sys.addaudithook(count)
        return save(lake, checkpoint, *state)

    # For the whole process, and for those that it forks.
    patch("sp_data.training.loop.loop.Loop.step", step).start()
    patch("sp_data.training.checkpoints.save", pausing_save).start()
    worker.main(job_file)


if __name__ == "__main__":
    if sys.argv[1] == CHILD:
        child(Path(sys.argv[2]), moment=sys.argv[3], job_file=sys.argv[4])
    else:
        command(sys.argv[1], sys.argv[2], sys.argv[3:])
