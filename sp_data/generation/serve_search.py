"""clip-retrieval's `back` over one dataset, on this machine alone: for its own front end and its ClipClient.

    http://127.0.0.1:1234/                  its front end
    http://127.0.0.1:1234/knn-service       what ClipClient posts to; also /metadata and /indices-list

The services are clip-retrieval's own. What differs from `clip-retrieval back`: it listens where it is told to and not
on every interface, the CLIP is the dataset's, each picture comes out of its tar with its page, licence and uploader,
nothing is fetched from anywhere, no other site's page may ask it (neither by its own name nor by another), what a wiki
says runs in no browser (a content security policy), and what is forgotten while it runs is not found any more.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import logging
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from sp_data.dataset.embed.clip import Clip, clip_retrieval_name, load_clip, quiet
from sp_data.errors import SpDataError, UsageError
from sp_data.foreign_text import is_web_address
from sp_data.generation.inputs import MAX_BYTES, InputPicture, picture_of
from sp_data.generation.search import DatasetIndex
from sp_data.generation.search_index import OpenIndex, clip_retrieval_module
from sp_data.lake import Lake
from sp_data.recipe import Recipe
from sp_data.runtime.web_access import is_asked_by_its_name, is_asked_from_itself

log = logging.getLogger(__name__)

MAX_RESULTS = 3_000
"""As many as the front end asks for."""
MAX_REQUEST_BYTES = 2 * MAX_BYTES
"""A picture in base64, and the rest of the request."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every answer: the front end's scripts are its own files, and its pictures come with the answers."""
SAFETY_FILES = {
    "ViT-L/14": ("clip_autokeras_binary_nsfw", "violence_detection_vit_l_14.npy"),
    "ViT-B/32": ("clip_autokeras_nsfw_b32", "violence_detection_vit_b_32.npy"),
}
"""What clip-retrieval calls its safety model and its violence detector of a CLIP, below ~/.cache/clip_retrieval/."""


@dataclass(frozen=True, slots=True)
class SearchServer:
    """A server that listens already; `serve` answers until it is interrupted."""

    address: str
    num_pictures: int
    _server: Any

    def serve(self) -> None:
        self._server.serve_forever()


@contextlib.contextmanager
def search_server(recipe: Recipe, lake: Lake, host: str, port: int) -> Iterator[SearchServer]:
    """Load the CLIP, make the index if there is none, and listen; port 0: any free one.

    Raises UsageError if the port is taken or the host is not this machine's, and what `DatasetIndex.open` and
    `load_clip` raise.
    """
    # Before the CLIP is loaded: a port in use should be said at once.
    with _listening(host, port) as listener, contextlib.ExitStack() as stack:
        index = DatasetIndex.open(recipe, lake, "index")
        opened = index.opened_index()
        clip = load_clip(recipe.embed.clip_model, recipe.embed.dim)
        dataset = _ServedDataset(recipe, lake, clip, index, opened)
        stack.callback(dataset.close)
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, type: str, message: str, *args: Any) -> None:
                log.debug(message, *args)

        server = make_server(
            host, port, _app(dataset, host), threaded=True, request_handler=Quiet, fd=listener.fileno()
        )
        stack.callback(server.server_close)
        shown = f"[{host}]" if ":" in host else host
        yield SearchServer(f"http://{shown}:{listener.getsockname()[1]}", len(opened.numbers), server)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, OverflowError, UnicodeError) as error:
        raise UsageError(f"--host {host}: no address of this machine ({error}); leave it out for 127.0.0.1") from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UsageError(f"port {port} of {host} is in use; give another with --port") from error
            raise UsageError(f"--host {host} --port {port}: cannot listen there ({error.strerror})") from error
        yield listener


class _ServedDataset:
    """What clip-retrieval's services ask: the dataset's name -> its resource, of the newest state of the dataset."""

    def __init__(self, recipe: Recipe, lake: Lake, clip: Clip, index: DatasetIndex, opened: OpenIndex) -> None:
        self._recipe, self._lake, self._clip = recipe, lake, clip
        self._lock = threading.Lock()
        self._index = index
        self.resources = {lake.dataset: self._resource(index, opened)}

    @property
    def dim(self) -> int:
        return self._index.dim

    def refresh(self) -> None:
        """Take the newest dataset, where there is another or a picture was forgotten. Raises SpDataError."""
        with self._lock:
            if self._index.is_current():
                return
            log.info("search: dataset %s changed; its index is made anew", self._lake.dataset)
            index = DatasetIndex.open(self._recipe, self._lake, "index")
            # The old one stays open: another thread may be answering from it.
            self.resources[self._lake.dataset] = self._resource(index, index.opened_index())
            self._index = index

    def close(self) -> None:
        self._index.close()

    def _resource(self, index: DatasetIndex, opened: OpenIndex) -> Any:
        back = clip_retrieval_module("clip_back")
        name = clip_retrieval_name(self._recipe.embed.clip_model)
        has_safety, has_violence = _installed(name)
        return back.ClipResource(
            device=self._clip.device,
            model=self._clip.model,
            preprocess=self._preprocess,
            tokenizer=self._clip.tokenizer,
            model_txt_mclip=None,
            safety_model=back.load_safety_model(name) if has_safety else None,
            violence_detector=back.load_violence_detector(name) if has_violence else None,
            metadata_provider=_Metadata(index, opened),
            image_index=opened.image,
            text_index=back.load_index(str(opened.text), False),
            ivf_old_to_new_mapping=None,
            columns_to_return=None,
            metadata_is_ordered_by_ivf=False,
            aesthetic_embeddings=None,
        )

    def _preprocess(self, image: Image.Image) -> Any:
        return self._clip.preprocess(InputPicture.of_image(image).image)


class _Metadata:
    """A metadata provider of clip-retrieval's, which asks by row of the index."""

    def __init__(self, index: DatasetIndex, opened: OpenIndex) -> None:
        self._index, self._opened = index, opened

    def get(self, ids: Any, _columns: Any = None) -> list[dict[str, Any]]:
        rows = [int(row) for row in ids]
        if not all(0 <= row < len(self._opened.numbers) for row in rows):
            raise UsageError(f"ids: expected rows of the index, from 0 to {len(self._opened.numbers) - 1:,}")
        neighbours = self._index.described(self._opened.numbers[rows])
        return [
            {
                **neighbour.model_dump(exclude={"cosine", "tar"}),
                # The front end makes links of it.
                "url": neighbour.url if is_web_address(neighbour.url) else "",
                "image": base64.b64encode(self._index.thumbnail(neighbour.key)).decode(),
            }
            for neighbour in neighbours
        ]


def _installed(name: str) -> tuple[bool, bool]:
    """Whether clip-retrieval's safety model and its violence detector of this CLIP lie on this machine: it would fetch
    them otherwise."""
    if name not in SAFETY_FILES:
        return False, False
    cache = Path.home() / ".cache" / "clip_retrieval" / name.replace("/", "_")
    safety, violence = ((cache / file).exists() for file in SAFETY_FILES[name])
    return safety and find_spec("autokeras") is not None, violence


def _app(dataset: _ServedDataset, host: str) -> Any:
    """clip-retrieval's application, as its `clip_back` puts it together."""
    with quiet():
        from flask import Flask, Response, jsonify, request
        from flask_restful import Api  # type: ignore[import-untyped]

        back, front = clip_retrieval_module("clip_back"), clip_retrieval_module("clip_front")

    class Answers(Api):  # type: ignore[misc]
        def handle_error(self, e: Exception) -> Any:
            if not isinstance(e, SpDataError):
                return super().handle_error(e)
            response = jsonify({"message": str(e)})
            response.status_code = 400 if isinstance(e, UsageError) else 503
            return response

    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES

    @app.before_request
    def check() -> Any:
        if not is_asked_by_its_name(request.host, host):
            return Response("This server is not known by that name: ask for the address that it has said.", 403)
        if not is_asked_from_itself(request.headers.get("Origin"), request.host):
            return Response("Pages of other sites may not ask this server.", 403)
        question = QUESTIONS.get(request.path)
        if question is not None and request.method == "POST":
            dataset.refresh()
            _check(question, request.get_data(), dataset)
        return None

    @app.after_request
    def protected(response: Any) -> Any:
        response.headers.update(HEADERS)
        return response

    with quiet():
        # An empty backend: the page asks whoever it came from. It shows the pictures that come with the answers, and
        # would load them from the wiki if it knew the column with their addresses.
        front.add_static_endpoints(app, "", next(iter(dataset.resources)), "no-address")
    api = Answers(app)
    resources = {"clip_resources": dataset.resources}
    api.add_resource(back.MetricsSummary, "/metrics-summary")
    api.add_resource(back.IndicesList, "/indices-list", resource_class_kwargs={"indices": list(dataset.resources)})
    api.add_resource(back.MetadataService, "/metadata", resource_class_kwargs=resources)
    api.add_resource(back.KnnService, "/knn-service", resource_class_kwargs=resources)
    return app


class _Question(BaseModel):
    """What is asked, as far as clip-retrieval's services would answer anything else with an internal error."""

    indice_name: str


class _Knn(_Question):
    text: str | None = None
    image: str | None = None
    """Base64."""
    image_url: str | None = None
    embedding_input: list[FiniteFloat] | None = None
    modality: Literal["image", "text"]
    num_images: int = Field(ge=1, le=MAX_RESULTS)
    num_result_ids: int = Field(1, ge=1, le=MAX_RESULTS)
    use_mclip: bool = False
    # The front end sends texts, empty ones too; nothing reads them without its models.
    aesthetic_score: Literal[""] | int = ""
    aesthetic_weight: Literal[""] | float = ""


class _Lookup(_Question):
    ids: list[int] = Field(max_length=MAX_RESULTS)


QUESTIONS: dict[str, type[_Question]] = {"/knn-service": _Knn, "/metadata": _Lookup}


def _check(kind: type[_Question], data: bytes, dataset: _ServedDataset) -> None:
    """Raises UsageError for a request that cannot be answered, or that would make this server ask another one."""
    try:
        question = kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the request"
        raise UsageError(f"{where}: {first['msg']}") from error
    if question.indice_name not in dataset.resources:
        raise UsageError(f"indice_name {question.indice_name!r}: expected {', '.join(dataset.resources)}")
    if not isinstance(question, _Knn):
        return
    if question.image_url:
        raise UsageError("image_url: this server fetches nothing; send the picture itself, in `image` as base64")
    if question.use_mclip:
        raise UsageError("use_mclip: this server has no multilingual CLIP")
    if question.text:
        return
    if question.image:
        try:
            picture_of(base64.b64decode(question.image), "image")
        except binascii.Error as error:
            raise UsageError(f"image is not base64 ({error})") from error
    elif question.embedding_input is None:
        raise UsageError("nothing to search for: expected text, image or embedding_input")
    elif len(question.embedding_input) != dataset.dim:
        raise UsageError(f"embedding_input has {len(question.embedding_input):,} numbers, expected {dataset.dim:,}")
