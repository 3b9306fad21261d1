"""How the embed stage reads and computes, without a model of CLIP's size."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch

from sp_data.dataset.embed.clip import Clip
from sp_data.dataset.embed.precision import in_bf16
from sp_data.dataset.embed.stage import ShardBatch, Work, read_ahead

WORK = Work("00000", 0, "", 1)


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def threads_of_a_new_thread() -> int:
    num_threads: list[int] = []
    thread = threading.Thread(target=lambda: num_threads.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return num_threads[0]


def test_batches_are_read_with_one_torch_thread_while_the_model_keeps_its_own(three_threads: None) -> None:
    def batches() -> Iterator[ShardBatch]:
        yield WORK, {"num_threads": torch.get_num_threads()}

    with read_ahead(batches()) as batches_read:
        assert list(batches_read) == [(WORK, {"num_threads": 1})]
        assert torch.get_num_threads() == 3


def test_threads_begun_after_reading_have_as_many_torch_threads_as_before(three_threads: None) -> None:
    def batches() -> Iterator[ShardBatch]:
        yield WORK, None
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"), read_ahead(batches()) as batches_read:
        list(batches_read)
    assert threads_of_a_new_thread() == 3


def test_computing_keeps_nothing_for_gradients_and_rows_are_the_same() -> None:
    tower = torch.nn.Linear(8, 4)
    encode = in_bf16(tower, "cpu")
    clip = Clip(dict, torch.tensor, torch.tensor, "cpu", 4, "bf16", tower)
    batch = torch.linspace(-1, 1, 16).reshape(2, 8)
    expected = encode(batch).detach()
    with clip.computing():
        output = encode(batch)
        assert output.is_inference()
        assert torch.equal(output, expected)
    assert not encode(batch).is_inference()


def test_clip_retrievals_modules_come_without_the_rest_of_it() -> None:
    code = (
        "import sys; from sp_data.dataset.embed.clip_retrieval import module\n"
        "print([module(name).__name__ for name in ('reader', 'mapper', 'writer')])\n"
        "rest = {'clip_retrieval', 'sentence_transformers', 'faiss', 'flask', 'wandb'}\n"
        "print(sys.modules.keys() & rest or 'nothing')"
    )
    finished = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    first, second = finished.stdout.splitlines()
    assert first.count("clip_retrieval.clip_inference.") == 3
    assert second == "nothing"
