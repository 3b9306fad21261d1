"""Pictures on disk: whole files, also when two commands write the same one; and a sheet of them all."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sp_data.generation.files import CELL_PX, MAX_SHEET, PictureFolder, fit, sheet
from sp_data.generation.picture import GeneratedPicture
from sp_data.lake import Lake


def made(seed: int, colour: str = "red", size: tuple[int, int] = (64, 64)) -> GeneratedPicture:
    return GeneratedPicture(
        Image.new("RGB", size, colour), {"kind": "dream", "prompt": "a kid", "seed": seed, "decoder": []}
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), "kids")


@pytest.mark.parametrize("is_in_lake", [True, False])
def test_writers_of_the_same_picture_do_not_disturb_each_other(lake: Lake, tmp_path: Path, is_in_lake: bool) -> None:
    folder = PictureFolder(lake, None if is_in_lake else tmp_path / "out")
    data, failures = made(7).png() * 2_000, []
    start = threading.Barrier(4)

    def write() -> None:
        start.wait()
        try:
            for _ in range(50):
                folder.write("kid.png", data)
        except OSError as error:
            failures.append(error)

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failures == []
    path = Path(folder.write("kid.png", data))
    assert path.read_bytes() == data
    assert [file.name for file in path.parent.iterdir()] == ["kid.png"], "no unfinished file is left"


def test_each_picture_is_written_before_the_next_is_drawn(lake: Lake, tmp_path: Path) -> None:
    drawn: list[int] = []

    def drawing() -> Iterator[GeneratedPicture]:
        for seed in range(3):
            assert len(list((tmp_path / "out").glob("*.png"))) == seed
            drawn.append(seed)
            yield made(seed)
        raise MemoryError

    folder = PictureFolder(lake, tmp_path / "out")
    with pytest.raises(MemoryError):
        list(folder.write_each(drawing(), sidecars=True))
    assert drawn == [0, 1, 2]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert [name.rsplit(".", 1)[1] for name in names] == ["json", "png"] * 3
    assert json.loads((tmp_path / "out" / names[2]).read_bytes())["seed"] == 1


def test_without_a_folder_pictures_lie_in_the_lake(lake: Lake) -> None:
    (entry,) = PictureFolder(lake).write_each([made(7)])
    assert entry.path == lake.full(f"generated/{entry.made.file_name}")
    assert lake.read_bytes(f"generated/{entry.made.file_name}") == entry.made.png()


def test_a_sheet_shows_every_picture_where_it_belongs() -> None:
    colours = ["red", "lime", "blue", "yellow", "black"]
    canvas = sheet([Image.new("RGB", (32, 32), colour) for colour in colours], ["a kid"] * 5, columns=2)
    seen = np.asarray(canvas)
    left, right, rows = 8 + CELL_PX // 2, 8 + 200 + CELL_PX // 2, canvas.height // 3
    assert canvas.width == 2 * 200 + 8
    tops = [8 + CELL_PX // 2 + row * ((canvas.height - 8) // 3) for row in range(3)]
    assert rows > CELL_PX
    assert [tuple(seen[tops[number // 2], (left, right)[number % 2]]) for number in range(6)] == [
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 0),
        (0, 0, 0),
        (255, 255, 255),
    ]
    assert (seen[8 + CELL_PX + 2 : 8 + CELL_PX + 20, 8:100] < 128).any(), "the label"


def test_a_sheet_of_many_pictures_shows_64_and_has_a_name_of_its_own(lake: Lake) -> None:
    folder = PictureFolder(lake)
    many = [made(seed) for seed in range(MAX_SHEET + 6)]
    path, other = folder.write_sheet(many), folder.write_sheet(many[:3], ["0%", "50%", "100%"])
    assert path != other
    assert path == folder.write_sheet(many)
    with Image.open(io.BytesIO(Path(path).read_bytes())) as opened:
        assert opened.size == (8 * 200 + 8, 8 * 245 + 8)


@pytest.mark.parametrize(
    ("size", "fitted"), [((64, 64), (192, 192)), ((90, 30), (180, 60)), ((1, 1), (192, 192)), ((4_000, 1), (192, 1))]
)
def test_a_picture_of_any_size_fits_into_its_cell(size: tuple[int, int], fitted: tuple[int, int]) -> None:
    assert fit(Image.new("RGB", size), CELL_PX).size == fitted
