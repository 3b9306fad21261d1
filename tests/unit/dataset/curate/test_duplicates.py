"""Near-duplicates are found by few differing bits and equal colours, and by nothing else."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sp_data.dataset.curate.duplicates import THUMB_TOLERANCE, relatives
from sp_data.dataset.curate.pictures import phash, thumb
from sp_data.demo.kids.artist import draw
from sp_data.demo.kids.kid import kids

GREY = bytes([128]) * 192


def differing(num_bits: int) -> bytes:
    bits = np.zeros(256, np.uint8)
    bits[:num_bits] = 1
    return np.packbits(bits).tobytes()


def test_few_bits_apart_is_a_relative_and_more_is_not() -> None:
    hashes = [differing(0), differing(4), differing(9)]
    assert relatives(hashes, [GREY] * 3, max_bits=4) == [[], [0], []]
    assert relatives(hashes, [GREY] * 3, max_bits=5) == [[], [0], [1]]


def test_other_colours_are_another_picture() -> None:
    other = bytes([128 + int(THUMB_TOLERANCE) + 1]) * 192
    assert relatives([differing(0)] * 2, [GREY, other], max_bits=4) == [[], []]


@settings(max_examples=50)
@given(st.lists(st.binary(min_size=32, max_size=32), max_size=12), st.integers(0, 8), st.data())
def test_bands_find_what_comparing_all_pairs_finds(hashes: list[bytes], max_bits: int, data: st.DataObject) -> None:
    for original in list(hashes):
        bits = np.unpackbits(np.frombuffer(original, np.uint8))
        flips = data.draw(st.lists(st.integers(0, 255), max_size=9, unique=True))
        bits[flips] ^= 1
        hashes.append(np.packbits(bits).tobytes())
    all_bits = [np.unpackbits(np.frombuffer(phash_bytes, np.uint8)) for phash_bytes in hashes]
    expected = [
        [earlier for earlier in range(later) if (all_bits[earlier] != all_bits[later]).sum() <= max_bits]
        for later in range(len(hashes))
    ]
    assert relatives(hashes, [GREY] * len(hashes), max_bits) == expected


def test_a_kid_saved_again_is_its_own_relative_and_no_other_kids() -> None:
    pictures = [draw(kid) for kid in kids(40, 7)]
    jpeg = BytesIO()
    pictures[3].save(jpeg, "JPEG", quality=85)
    pictures += [Image.open(jpeg).convert("RGB"), pictures[5].resize((200, 200), Image.Resampling.LANCZOS)]
    earlier = relatives([phash(picture) for picture in pictures], [thumb(picture) for picture in pictures], max_bits=4)
    assert earlier == [[]] * 40 + [[3], [5]]
