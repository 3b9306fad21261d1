"""Canonical JSON: equal things have equal bytes, whatever the order of insertion and the process."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sp_data.canonical import canonical_json, digest_of

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def reversed_order(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_order(inner) for key, inner in reversed(value.items())}
    return [reversed_order(inner) for inner in value] if isinstance(value, list) else value


@given(values)
def test_the_order_of_insertion_does_not_matter(value: Any) -> None:
    assert canonical_json(value) == canonical_json(reversed_order(value))


@given(values)
def test_nothing_is_lost(value: Any) -> None:
    assert json.loads(canonical_json(value).decode("utf-8", "surrogatepass")) == value


@given(values, values)
def test_different_values_have_different_digests(first: Any, second: Any) -> None:
    if json.dumps(first, sort_keys=True) != json.dumps(second, sort_keys=True):
        assert digest_of(first) != digest_of(second)


def test_the_digest_is_the_same_in_another_process() -> None:
    value = {"b": [1, 2.5, None], "ä": {"z": True, "a": "kid"}, "": "\u2603"}
    code = f"from sp_data.canonical import digest_of; print(digest_of({value!r}))"
    for seed in ("0", "1"):
        printed = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        assert printed.stdout.strip() == digest_of(value)


@pytest.mark.parametrize("value", [{1: "a"}, {"a": {2: "b"}}, [{None: 1}], {"a": {1, 2}}, b"bytes"])
def test_what_json_would_blur_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical_json(value)


@pytest.mark.parametrize("value", [float("nan"), [float("inf")]])
def test_numbers_without_a_value_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(value)
