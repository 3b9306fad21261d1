"""Pictures and masks that visitors give: where they are uploaded to, and how they are read within limits."""

from __future__ import annotations

import base64
import io
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.utils import get_upload_folder
from PIL import Image, ImageFilter

from sp_data.dataset.curate.decoding import Refused, decoder_errors
from sp_data.errors import CorruptFile, UsageError
from sp_data.runtime.contact_sheet import data_uri, jpeg
from sp_data.ui.fields import without_stubs
from sp_data.ui.uploads import make_room

if TYPE_CHECKING:
    from sp_data.generation.inputs import InputPicture
    from sp_data.ui.state import PageState

CANVAS_PX = 512
"""Longer side of the picture that a mask is painted on: a small picture is enlarged to about this, a large one
reduced."""
MAX_PAINTED_CHARACTERS = 4_000_000
MAX_SOFT_PX = 64
READABLE = ".png .jpg .jpeg .webp .gif .avif .bmp .tif .tiff"


with without_stubs():

    class PictureInput(gr.Image):
        """An upload that gives its path, unread: `uploaded` says in the page what cannot be read."""

        is_template = True

        def preprocess(self, payload: Any) -> str | None:
            if payload is None or not payload.path:
                return None
            # A request may name any file; only what was uploaded is read.
            if not Path(payload.path).resolve().is_relative_to(Path(get_upload_folder()).resolve()):
                raise gr.Error("that picture was not uploaded here", print_exception=False)
            return str(payload.path)


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
    if not make_room(state.folder, len(data)):
        raise UsageError("too many pictures lie here already; try again in ten minutes")
    place = state.folder / "taken" / secrets.token_hex(8) / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return str(place)


def painter(picture: InputPicture) -> str:
    """HTML to paint a mask on a picture: by mouse, finger or keyboard (page.js).

    Gradio's ImageEditor paints through WebGL: where there is no GPU a stroke takes minutes, and without a mouse none
    can be made.
    """
    shown = _shown(picture.image)
    is_small = max(picture.image.size) < CANVAS_PX
    data = data_uri(_png(shown), "image/png") if is_small else data_uri(jpeg(shown, 90))
    width, height = shown.size
    return (
        f'<div class="sp-painter" data-key="{secrets.token_hex(4)}" style="--width:{width}px">'
        '<p class="sp-label">2. Paint over what is to be drawn anew</p>'
        f'<div class="sp-canvas"><img src="{data}" alt="" width="{width}" height="{height}">'
        f'<canvas tabindex="0" width="{width}" height="{height}" role="application" '
        'aria-label="Mask. Arrow keys move the brush, space puts it down and lifts it."></canvas>'
        '<span class="sp-brush" hidden></span></div>'
        '<p class="sp-facts"><label>Brush <input type="range" min="4" max="160" value="48" aria-label="Brush size">'
        '</label><button type="button" data-paint="erase" aria-pressed="false">Eraser</button>'
        '<button type="button" data-paint="undo">Undo</button>'
        '<button type="button" data-paint="clear">Clear</button></p></div>'
    )


def _shown(image: Image.Image) -> Image.Image:
    """In a size to paint on: a small one enlarged by a whole factor, its pixels as squares."""
    longer = max(image.size)
    if longer <= CANVAS_PX // 2:
        factor = CANVAS_PX // longer
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    if longer <= CANVAS_PX:
        return image
    width, height = (max(1, round(side * CANVAS_PX / longer)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def painted_layer(sent: str) -> Image.Image | None:
    """What a visitor painted, RGBA, of the data URI that page.js sends; None if that is nothing or cannot be read."""
    prefix = "data:image/png;base64,"
    if not sent.startswith(prefix) or len(sent) > MAX_PAINTED_CHARACTERS:
        return None
    try:
        data = io.BytesIO(base64.b64decode(sent.removeprefix(prefix), validate=True))
        with decoder_errors(), Image.open(data, formats=("PNG",)) as png:
            return png.convert("RGBA") if max(png.size) <= CANVAS_PX else None
    except (ValueError, Refused):
        return None


def mask_of(painted: Image.Image, picture: InputPicture, soft_px: float) -> Image.Image:
    """The mask that was painted on a picture, in the picture's size: white where the brush was.

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
