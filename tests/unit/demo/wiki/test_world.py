"""The made-up wiki: equal bytes each time, and every awkward file is what it says it is."""

import hashlib
import io
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps

from sp_data.demo.kids.kid import HELD_OUT
from sp_data.demo.wiki.awkward import ORIENTATION_TAG
from sp_data.demo.wiki.world import File, World, build_world

NUM_KIDS = 30
DIGEST = (
    "import hashlib; from sp_data.demo.wiki.world import build_world; w = build_world(30);"
    "print(hashlib.sha256(repr((w.pages, w.files)).encode()).hexdigest())"
)


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(NUM_KIDS)


def opened(file: File) -> Image.Image:
    picture = Image.open(io.BytesIO(file.data))
    picture.load()
    return picture


def odd(world: World, place: int) -> File:
    """The picture of the odd kid at `place`: 0 cut, 1 moving, 2 turned, 3 deep, 4 private, 5 mislabelled, 6 round."""
    name = world.kids[NUM_KIDS + place].name
    return next(file for file in world.files.values() if file.name.rpartition(".")[0] == name)


def test_equal_arguments_give_equal_bytes_in_another_process(world: World) -> None:
    assert build_world(NUM_KIDS) == world
    other = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True).stdout.strip()
    assert other == hashlib.sha256(repr((world.pages, world.files)).encode()).hexdigest()


def test_sizes_types_and_digests_are_what_the_files_say(world: World) -> None:
    for file in world.files.values():
        assert file.sha1 == hashlib.sha1(file.data).hexdigest()
        if file.mime.startswith("image/") and file.mime != "image/svg+xml" and file.width:
            picture = Image.open(io.BytesIO(file.data))
            assert ImageOps.exif_transpose(picture).size == (file.width, file.height)
            assert Image.MIME[str(picture.format)] == file.mime


def test_every_kid_has_an_article_with_an_infobox_that_names_its_picture(world: World) -> None:
    for kid in world.kids[:-1]:
        text = world.pages[kid.name].wikitext
        for field in (f"|name = {kid.name}", f"|hat kind = {kid.hat_kind}", f"|hair = {kid.hair}"):
            assert field in text.splitlines()
        image = next(line.removeprefix("|image = ") for line in text.splitlines() if line.startswith("|image = "))
        assert image in world.files
        assert f"File:{image}" in world.pages[kid.name].images
        assert f"{image}|[[{kid.name}]]|link={kid.name}" in world.pages["Portal:Characters"].wikitext


def test_one_kid_has_no_infobox_but_a_thumbnail(world: World) -> None:
    text = world.pages[world.kids[-1].name].wikitext
    assert "Infobox" not in text
    assert f"[[File:{world.kids[-1].name}.png|thumb|" in text


def test_files_are_used_on_several_pages_and_some_uses_lead_nowhere(world: World) -> None:
    uses = [image for page in world.pages.values() for image in page.images]
    assert max(map(uses.count, uses)) >= 3
    assert any(image.removeprefix("File:") not in world.files for image in uses)


def test_every_picture_has_a_licence_template_and_its_category(world: World) -> None:
    licences = {"CC-BY-SA": "CC-BY-SA images", "Fairuse": "Fair use images", "Opt-out": "Opted out"}
    for name in world.files:
        page = world.pages[f"File:{name}"]
        (licence,) = [licence for licence in licences if "{{" + licence + "}}" in page.wikitext]
        assert f"Category:{licences[licence]}" in page.categories


def test_no_held_out_pair_is_on_the_wiki(world: World) -> None:
    assert not {(kid.coat, kid.hat) for kid in world.kids} & HELD_OUT


def test_the_truncated_png_has_a_valid_header_and_no_end(world: World) -> None:
    file = odd(world, 0)
    assert Image.open(io.BytesIO(file.data)).size == (256, 256)
    assert b"IEND" not in file.data
    with pytest.raises(OSError, match="truncated"):
        opened(file)


def test_the_gif_moves(world: World) -> None:
    picture = opened(odd(world, 1))
    assert (picture.format, getattr(picture, "n_frames", 1)) == ("GIF", 2)


def test_the_turned_jpeg_needs_its_exif(world: World) -> None:
    picture = opened(odd(world, 2))
    assert picture.getexif()[ORIENTATION_TAG] == 6
    assert picture.size == (320, 256)
    upright = np.asarray(ImageOps.exif_transpose(picture).convert("L"), float)
    # Shoes, gloves and ground are darker than the sky.
    assert upright[-40:].mean() < upright[:20].mean()


def test_the_deep_png_has_16_bits_a_channel(world: World) -> None:
    file = odd(world, 3)
    width, height, depth, colour = struct.unpack(">IIBB", file.data[16:26])
    assert (width, height, depth, colour) == (256, 256, 16, 2)
    assert opened(file).getpixel((0, 0)) is not None


def test_the_private_picture_is_marked(world: World) -> None:
    page = world.pages[f"File:{odd(world, 4).name}"]
    assert "{{Opt-out}}" in page.wikitext
    assert "Category:Opted out" in page.categories


def test_the_mislabelled_picture_is_a_jpeg(world: World) -> None:
    file = odd(world, 5)
    assert file.name.endswith(".png")
    assert opened(file).format == "JPEG"


def test_the_round_picture_is_transparent_in_its_corners(world: World) -> None:
    picture = opened(odd(world, 6))
    assert picture.mode == "RGBA"
    assert (picture.getpixel((0, 0)), picture.getpixel((128, 128))) != (None, None)
    alpha = np.asarray(picture)[..., 3]
    assert (alpha[0, 0], alpha[128, 128]) == (0, 255)


def test_some_pictures_came_in_twice(world: World) -> None:
    def ending_with(ending: str) -> File:
        return next(file for name, file in world.files.items() if name.endswith(ending))

    twin, scan, small = ending_with(" copy.png"), ending_with(" scan.jpg"), ending_with(" small.png")
    assert twin.data == world.files[twin.name.replace(" copy", "")].data
    for copy, original in ((scan, scan.name.replace(" scan.jpg", ".png")), (small, small.name.replace(" small", ""))):
        assert copy.sha1 != world.files[original].sha1
        difference = np.asarray(opened(copy).resize((16, 16)), float) - np.asarray(
            opened(world.files[original]).resize((16, 16)), float
        )
        assert np.abs(difference).mean() < 4


def test_one_picture_is_a_pixel_and_two_files_are_none(world: World) -> None:
    assert opened(world.files["Pixel.png"]).size == (1, 1)
    assert world.files["Paper Kids logo.svg"].data.startswith(b"<?xml")
    assert world.files["Theme song.ogg"].data.startswith(b"OggS")


def test_a_wiki_too_small_for_its_galleries_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 24"):
        build_world(5)
