"""What visitors paint and upload, read within limits."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sp_data.errors import UsageError
from sp_data.generation.inputs import InputPicture, repainting
from sp_data.ui.pictures import CANVAS_PX, mask_of, painted_layer, painter, uploaded


def _picture(width: int, height: int) -> InputPicture:
    return InputPicture.of_image(Image.new("RGB", (width, height), "grey"), "grey.png")


def _layer(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    layer = Image.new("RGBA", size)
    ImageDraw.Draw(layer).rectangle(box, "white")
    return layer


def _sent(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def test_a_mask_has_the_picture_s_size_and_covers_what_was_painted() -> None:
    mask = mask_of(_layer((512, 512), (128, 256, 255, 511)), _picture(64, 64), 0)
    expected = np.zeros((64, 64), np.uint8)
    expected[32:64, 16:32] = 255
    assert (np.asarray(mask) == expected).all()


def test_a_soft_edge_lies_within_what_was_painted() -> None:
    hard = np.asarray(mask_of(_layer((512, 512), (128, 128, 383, 383)), _picture(256, 256), 0))
    soft = np.asarray(mask_of(_layer((512, 512), (128, 128, 383, 383)), _picture(256, 256), 16))
    assert not soft[hard == 0].any()
    row = soft[128, 64:128].astype(int)
    assert row[0] < 40 and row[-1] == 255
    assert (np.diff(row) >= 0).all()
    assert len(set(row.tolist())) > 8


def test_a_stroke_that_is_thinner_than_its_soft_edge_stays() -> None:
    mask = mask_of(_layer((512, 512), (250, 0, 257, 511)), _picture(512, 512), 64)
    assert mask.getbbox() == (250, 0, 258, 512)


def test_a_dot_on_a_large_picture_s_canvas_is_not_lost() -> None:
    mask = mask_of(_layer((512, 384), (10, 10, 10, 10)), _picture(64, 48), 0)
    assert mask.getbbox() == (1, 1, 2, 2)
    assert repainting(_picture(64, 48), mask).mask.any()


def test_nothing_painted_is_a_sentence() -> None:
    with pytest.raises(UsageError, match="nothing is painted"):
        mask_of(Image.new("RGBA", (512, 512)), _picture(64, 64), 0)


def test_what_a_browser_sends_is_read_and_nothing_else() -> None:
    layer = _layer((256, 256), (0, 0, 9, 9))
    read = painted_layer(_sent(layer))
    assert read is not None and read.getbbox() == (0, 0, 10, 10)
    too_large = _sent(Image.new("RGBA", (CANVAS_PX + 1, 8)))
    for sent in ("", "data:image/png;base64,", "data:image/png;base64,AAAA", "data:image/svg+xml,<svg>", too_large):
        assert painted_layer(sent) is None
    assert painted_layer("data:image/png;base64," + "A" * 5_000_000) is None


@pytest.mark.parametrize(
    ("size", "shown"),
    [((64, 64), (512, 512)), ((100, 50), (500, 250)), ((300, 400), (300, 400)), ((4000, 3000), (512, 384))],
)
def test_a_picture_is_painted_on_in_a_fitting_size(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert f'<canvas tabindex="0" width="{shown[0]}" height="{shown[1]}"' in painter(_picture(*size))


def test_the_folder_of_an_upload_is_not_told(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UsageError) as caught:
        uploaded(str(tmp_path / "broken.png"))
    assert str(caught.value).startswith("broken.png cannot be read")
    assert str(tmp_path) not in str(caught.value)
