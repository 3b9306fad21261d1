"""Pictures and masks that visitors give: where they are uploaded to, and how they are read within limits."""

from __future__ import annotations

import contextlib
import io
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio import component_meta
from PIL import Image, ImageFilter

from sp_data.errors import CorruptFile, UsageError

if TYPE_CHECKING:
    from sp_data.generation.inputs import InputPicture
    from sp_data.ui.state import PageState

CANVAS_PX = 512
"""Longer side of the picture that a mask is painted on: a small picture is enlarged to about this, a large one
reduced."""
MAX_CANVAS_PIXELS = 4 * CANVAS_PX * CANVAS_PX
BRUSH_PX = CANVAS_PX // 12
MAX_SOFT_PX = 64
READABLE = ".png .jpg .jpeg .webp .gif .avif .bmp .tif .tiff"


@contextlib.contextmanager
def _without_stubs() -> Iterator[None]:
    """Gradio writes a .pyi beside every class that is made of one of its components; not into this package."""
    write = component_meta.create_or_modify_pyi
    component_meta.create_or_modify_pyi = lambda *_: None
    try:
        yield
    finally:
        component_meta.create_or_modify_pyi = write


with _without_stubs():

    class PictureInput(gr.Image):
        """An upload that gives its path, unread: `uploaded` says in the page what cannot be read."""

        is_template = True

        def preprocess(self, payload: Any) -> str | None:
            return None if payload is None or not payload.path else str(payload.path)

    class MaskEditor(gr.ImageEditor):
        """A canvas that gives what was painted on it, RGBA; None if that is nothing or cannot be read."""

        is_template = True

        def preprocess(self, payload: Any) -> Any:
            if payload is None:
                return None
            # Small ones come as bytes beside the request.
            sent = self.blob_storage.pop(payload.id, None) if payload.id is not None else None
            layers = sent.layers if sent is not None else [layer.path for layer in payload.layers]
            return next((image for layer in layers if layer and (image := _painted(layer)) is not None), None)


def picture_input(label: str, name: str, height: int) -> PictureInput:
    return PictureInput(
        label=label,
        height=height,
        type="filepath",
        sources=["upload", "clipboard"],
        buttons=[],
        elem_id=name,
        elem_classes="sp-upload",
    )


def mask_editor(label: str, name: str) -> MaskEditor:
    """With a white brush; hidden until there is a picture to paint on."""
    return MaskEditor(
        label=label,
        type="pil",
        sources=(),
        transforms=(),
        layers=False,
        buttons=[],
        format="png",
        brush=gr.Brush(default_size=BRUSH_PX, colors=["#ffffff"], color_mode="fixed"),
        eraser=gr.Eraser(default_size=BRUSH_PX),
        canvas_size=(CANVAS_PX, CANVAS_PX),
        visible=True,
        elem_id=name,
    )


def _painted(layer: bytes | str) -> Image.Image | None:
    try:
        image = Image.open(io.BytesIO(layer) if isinstance(layer, bytes) else layer, formats=("PNG", "WEBP"))
        return image.convert("RGBA") if image.width * image.height <= MAX_CANVAS_PIXELS else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def uploaded(path: str) -> InputPicture:
    """The picture of an upload. Raises UsageError for what is no picture, or too large."""
    from sp_data.generation.inputs import read_picture

    try:
        picture = read_picture(Path(path))
    except UsageError as error:
        # The folder that it was uploaded to is nobody's business.
        raise UsageError(str(error).replace(path, Path(path).name)) from error
    return picture


def taken(state: PageState, path: str) -> str:
    """A picture of the lake, 'generated/NAME.png' or 'pictures/KEY', as if it had been uploaded: the path of its copy.

    Raises UsageError, CorruptFile if there is none.
    """
    from sp_data.ui.lake_files import dataset_picture, generated_picture

    folder, _, name = path.partition("/")
    if folder == "generated":
        data = generated_picture(state.lake, name)
    else:
        name, data = f"{name}.jpg", dataset_picture(state, name)
    if data is None:
        raise CorruptFile(f"there is no picture {path} any more")
    place = state.folder / "taken" / secrets.token_hex(8) / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return str(place)


def canvas_of(picture: InputPicture) -> Image.Image:
    """The picture in a size to paint on: a small one enlarged by a whole factor, its pixels as squares."""
    longer = max(picture.image.size)
    if longer <= CANVAS_PX // 2:
        factor = CANVAS_PX // longer
        return picture.image.resize(
            (picture.image.width * factor, picture.image.height * factor), Image.Resampling.NEAREST
        )
    if longer <= CANVAS_PX:
        return picture.image
    width, height = (max(1, round(side * CANVAS_PX / longer)) for side in picture.image.size)
    return picture.image.resize((width, height), Image.Resampling.LANCZOS)


def mask_of(painted: Image.Image, picture: InputPicture, soft_px: float) -> Image.Image:
    """The mask that was painted on `canvas_of(picture)`, in the picture's size: white where the brush was.

    `soft_px`: the width of its edge in pixels of the picture, inwards, so that nothing unpainted changes.
    """
    alpha = painted.getchannel("A")
    if not alpha.getbbox():
        raise UsageError("nothing is painted: paint white over the part that is to be drawn anew")
    hard = alpha.resize(picture.image.size, Image.Resampling.BOX).point(lambda value: 255 if value >= 128 else 0)
    if not hard.getbbox():
        # Less than a pixel of a large picture.
        hard = alpha.resize(picture.image.size, Image.Resampling.BOX).point(lambda value: 255 if value else 0)
    if soft_px <= 0:
        return hard
    # Blurred, it is half white where the paint ends: from there it rises to white.
    blurred = hard.filter(ImageFilter.GaussianBlur(min(float(soft_px), MAX_SOFT_PX) / 2))
    soft = blurred.point(lambda value: max(0, 2 * value - 255))
    return soft if soft.getbbox() else hard
