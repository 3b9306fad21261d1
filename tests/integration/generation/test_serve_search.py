"""clip-retrieval's own client against `sp-data serve-search`, over HTTP."""

from __future__ import annotations

import base64
import io
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from shared_lake import copied

from sp_data import manifest as manifests
from sp_data.errors import StageNotDone, UsageError
from sp_data.generation.search import DatasetIndex
from sp_data.generation.search_index import clip_retrieval_module
from sp_data.generation.serve_search import search_server
from sp_data.lake import Lake
from sp_data.recipe import Recipe
from sp_data.wiki.forgotten import Forgotten, write_forgotten

COMMAND = str(Path(sys.executable).with_name("sp-data"))


@pytest.fixture(scope="module")
def lake(demo_lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return copied(demo_lake, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def address(lake: Lake) -> Iterator[str]:
    """The command, running on a free port."""
    command = [COMMAND, "serve-search", "--port", "0", "--lake", str(Path(lake.root).parent), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert (ready["dataset"], ready["pictures"]) == ("demo", 106)
        yield ready["address"]
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (0, "")


def client(address: str, **options: Any) -> Any:
    made = clip_retrieval_module("clip_client").ClipClient
    return made(f"{address}/knn-service", "demo", **{"num_images": 5, "deduplicate": False, **options})


def test_words_find_pictures_with_their_pages_and_licences(address: str, lake: Lake) -> None:
    results = client(address).query(text="a kid in a red coat and a red cap")
    assert len(results) == 5
    assert "red coat" in results[0]["caption"]
    first = results[0]
    assert [result["similarity"] for result in results] == sorted(
        (result["similarity"] for result in results), reverse=True
    )
    assert first["url"].startswith("http://paper-kids.localhost/images/")
    assert first["title"].startswith("File:")
    assert first["page"]
    assert first["licence"] in ("CC-BY-SA", "Fairuse")
    verified = manifests.latest(lake, "verify")
    assert verified is not None
    with DatasetIndex(verified, lake) as index:
        assert base64.b64decode(first["image"]) == index.thumbnail(first["key"]), "the tar's own bytes"
    by_caption = client(address, modality=clip_retrieval_module("clip_client").Modality.TEXT)
    assert by_caption.query(text=first["caption"])[0]["caption"] == first["caption"]


def test_a_picture_and_a_vector_find_what_the_product_finds(address: str, lake: Lake, tmp_path: Path) -> None:
    verified = manifests.latest(lake, "verify")
    assert verified is not None
    with DatasetIndex(verified, lake) as index:
        numbers, rows = next(index.rows("val"))
        (wanted,) = index.nearest(rows[:1], 5)
        picture = tmp_path / "kid.png"
        # As people send them: transparent where it does not matter.
        Image.open(io.BytesIO(index.thumbnail(wanted[0].key))).convert("RGBA").save(picture)
    by_vector = client(address).query(embedding_input=rows[0].tolist())
    assert [result["key"] for result in by_vector] == [neighbour.key for neighbour in wanted]
    assert [result["similarity"] for result in by_vector] == pytest.approx(
        [neighbour.cosine for neighbour in wanted], abs=1e-3
    )
    by_picture = client(address).query(image=str(picture))
    assert by_picture[0]["key"] == wanted[0].key
    assert by_picture[0]["similarity"] > 0.999
    assert int(by_picture[0]["key"]) == numbers[0]


def test_the_front_end_is_served_and_loads_nothing_from_elsewhere(address: str) -> None:
    assert "<clip-front>" in requests.get(address, timeout=10).text
    config = requests.get(f"{address}/config.json", timeout=10).json()
    assert config == {"defaultBackend": "", "defaultIndex": "demo", "urlColumn": "no-address"}
    assert requests.get(f"{address}/indices-list", timeout=10).json() == ["demo"]
    # As the front end asks: for more than there is, and then for the rows that it has not shown yet.
    question = {"text": "a kid", "modality": "image", "num_images": 40, "num_result_ids": 3000, "indice_name": "demo"}
    question |= {"use_safety_model": True, "aesthetic_score": "9", "aesthetic_weight": "0.5"}
    answer = requests.post(f"{address}/knn-service", json=question, timeout=10)
    assert len(answer.json()) == 106
    assert "Access-Control-Allow-Origin" not in answer.headers
    rows = [result["id"] for result in answer.json()[40:42]]
    looked_up = requests.post(f"{address}/metadata", json={"ids": rows, "indice_name": "demo"}, timeout=10).json()
    assert [item["id"] for item in looked_up] == rows
    assert all(item["metadata"]["caption"] for item in looked_up)


def test_it_listens_on_this_machine_alone(address: str) -> None:
    port = f"{int(address.rpartition(':')[2]):04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A"]
    assert [place for place in listening if place.endswith(f":{port}")] == [f"0100007F:{port}"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": None, "image_url": "http://127.0.0.1:9/x.png"}, "image_url: this server fetches nothing"),
        ({"text": None, "image": "a"}, "image is not base64"),
        ({"text": None, "image": base64.b64encode(b"\x89PNG\r\n\x1a\ncut").decode()}, "image cannot be read as a pict"),
        ({"text": None, "embedding_input": [1.0, 2.0]}, "embedding_input has 2 numbers, expected 128"),
        ({"text": ""}, "nothing to search for"),
        ({"indice_name": "laion5B"}, "indice_name 'laion5B': expected demo"),
        ({"num_images": 10**9}, "num_images: Input should be less than or equal to 3000"),
        ({"modality": "sound"}, "modality: Input should be 'image' or 'text'"),
        ({"use_mclip": True}, "use_mclip: this server has no multilingual CLIP"),
    ],
)
def test_what_it_cannot_answer_is_refused_with_the_reason(address: str, fields: dict[str, Any], message: str) -> None:
    question = {"text": "a kid", "modality": "image", "num_images": 3, "indice_name": "demo", **fields}
    answer = requests.post(f"{address}/knn-service", json=question, timeout=10)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(message)
    rows = requests.post(f"{address}/metadata", json={"ids": [0, 9999], "indice_name": "demo"}, timeout=10)
    assert (rows.status_code, rows.json()["message"]) == (400, "ids: expected rows of the index, from 0 to 105")


def test_what_is_forgotten_while_it_runs_is_not_found_any_more(address: str, lake: Lake) -> None:
    before = client(address, num_images=200).query(text="a kid in a red coat")
    title = before[0]["title"]
    write_forgotten(lake, Forgotten().joined([(title, "")], "2026-11-26T00:00:00Z"))
    after = client(address, num_images=200).query(text="a kid in a red coat")
    assert [result["title"] for result in after] == [result["title"] for result in before if result["title"] != title]
    assert len(after) == len(before) - 1
    write_forgotten(lake, Forgotten())


def test_a_port_in_use_and_a_missing_dataset_are_said_in_a_sentence(
    demo_recipe: Recipe, demo_lake: Lake, tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = f"port {port} of 127.0.0.1 is in use; give another with --port"
        with pytest.raises(UsageError, match=message), search_server(demo_recipe, demo_lake, "127.0.0.1", port):
            pass
    empty = Lake(str(tmp_path), "none")
    with (
        pytest.raises(StageNotDone, match="no verified dataset yet"),
        search_server(demo_recipe, empty, "127.0.0.1", 0),
    ):
        pass
    # An address for documents, which is nobody's (RFC 5737).
    with pytest.raises(UsageError, match="cannot listen there"), search_server(demo_recipe, empty, "192.0.2.1", 0):
        pass


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
    ],
    ids=lambda headers: " ".join(*headers.items()),
)
def test_a_page_of_another_site_may_not_ask(address: str, headers: dict[str, str]) -> None:
    question = {"text": "a kid", "modality": "image", "num_images": 1, "indice_name": "demo"}
    for answer in (
        requests.get(f"{address}/", headers=headers, timeout=30),
        requests.get(f"{address}/indices-list", headers=headers, timeout=30),
        requests.post(f"{address}/knn-service", data=json.dumps(question), headers=headers, timeout=30),
    ):
        assert answer.status_code == 403
        assert "demo" not in answer.text


def test_the_front_end_s_own_page_may_ask_and_runs_its_own_scripts_only(address: str) -> None:
    answer = requests.get(f"{address}/indices-list", headers={"Origin": address}, timeout=30)
    assert answer.json() == ["demo"]
    for path in ("/", "/config.json", "/indices-list", "/none"):
        headers = requests.get(f"{address}{path}", timeout=30).headers
        assert "script-src 'self';" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in headers
