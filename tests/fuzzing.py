"""Fuzzing of a boundary: whatever comes from outside is read, or refused in one sentence; never a traceback or a hang.

    @few_and_many
    def test_any_list_is_read_or_refused(num_inputs, tmp_path):
        def read(data: bytes) -> None: ...
        fuzz(mutated(SEEDS, TOKENS), read, num_inputs, refusals=(RecipeError,))

`make test` tries few inputs, `make proof` thousands. Run with `-s`, each test prints how many inputs it tried, how many
of them were refused, and how long the slowest took.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

FEW, MANY = 40, 3000
HANG_S = 30.0
"""An input that takes longer counts as a hang, on however busy a machine."""

T = TypeVar("T")

few_and_many = pytest.mark.parametrize(
    "num_inputs", [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.proof)]
)


def fuzz(
    inputs: st.SearchStrategy[T],
    read: Callable[[T], object],
    num_inputs: int,
    *,
    refusals: tuple[type[Exception], ...] = (),
) -> None:
    """Call `read` with `num_inputs` inputs. It may return, or raise one of `refusals` with a sentence of one line.

    Any other exception fails the test with the smallest input that raises it; so do an empty sentence, one with control
    characters, and an input that takes longer than HANG_S.
    """
    tried = refused = 0
    slowest_s = 0.0
    started = time.monotonic()

    @settings(
        max_examples=num_inputs,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def run(value: T) -> None:
        nonlocal tried, refused, slowest_s
        tried += 1
        began = time.monotonic()
        try:
            read(value)
        except refusals as error:
            refused += 1
            sentence = str(error)
            assert sentence.strip(), f"{type(error).__name__} without a sentence"
            assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in sentence), ascii(sentence)
        took_s = time.monotonic() - began
        slowest_s = max(slowest_s, took_s)
        assert took_s < HANG_S, f"took {took_s:.0f} s"

    run()
    total_s = time.monotonic() - started
    name = sys._getframe(1).f_code.co_name
    print(f"{name}: {tried} inputs, {refused} refused, {total_s:.1f} s, slowest {slowest_s:.2f} s")


@st.composite
def _mutated(draw: st.DrawFn, seeds: Sequence[bytes], tokens: Sequence[bytes], max_changes: int) -> bytes:
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, max_changes))):
        at = draw(st.integers(0, len(data)))
        to = min(len(data), at + draw(st.integers(0, 40)))
        match draw(st.sampled_from(("cut", "end", "flip", "token", "bytes", "repeat", "splice"))):
            case "cut":
                del data[at:to]
            case "end":
                del data[at:]
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "token" if tokens:
                data[at:to] = draw(st.sampled_from(tokens))
            case "bytes":
                data[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "repeat":
                data[at:at] = bytes(data[at:to]) * draw(st.integers(1, 30))
            case "splice":
                data[at:to] = draw(st.sampled_from(seeds))[at:to]
            case _:
                pass
    return bytes(data)


def mutated(seeds: Sequence[bytes], tokens: Sequence[bytes] = (), *, max_changes: int = 6) -> st.SearchStrategy[bytes]:
    """Valid inputs with up to `max_changes` changes: cuts, flipped bits, repeated parts, parts of other seeds.

    `tokens`: what the format gives a meaning to, such as b'{{' of wikitext; they are put in at random.
    """
    return _mutated(list(seeds), list(tokens), max_changes)


def json_values(extra: st.SearchStrategy[object] | None = None) -> st.SearchStrategy[object]:
    """Any JSON value, with numbers and text that programs stumble over; `extra` is mixed in."""
    odd = st.sampled_from(
        [None, True, -1, 2**31, 2**70, 1e999, -0.0, "", "\x00", "\x1b[2J", "\u202e", "../..", "a" * 5000, [], {}]
    )
    leaves = st.one_of(odd, st.integers(), st.text(max_size=20), st.booleans(), *([extra] if extra is not None else []))
    return st.recursive(
        leaves,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
        max_leaves=12,
    )


def mutated_json(seeds: Sequence[object], *, max_changes: int = 3) -> st.SearchStrategy[object]:
    """Valid JSON values in which up to `max_changes` parts are replaced by other values, or are missing."""
    return _mutated_json(list(seeds), max_changes)


@st.composite
def _mutated_json(draw: st.DrawFn, seeds: Sequence[object], max_changes: int) -> object:
    value = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, max_changes))):
        value = _with_one_change(draw, value)
    return value


def _with_one_change(draw: st.DrawFn, value: object) -> object:
    if isinstance(value, dict) and value and draw(st.integers(0, 4)):
        key = draw(st.sampled_from(sorted(value, key=str)))
        if not draw(st.integers(0, 4)):
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: _with_one_change(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 4)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], _with_one_change(draw, value[at]), *value[at + 1 :]]
    return draw(json_values())
