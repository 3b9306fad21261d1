"""Where the page listens, and that nobody else is let in without a password."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sp_data.errors import UsageError
from sp_data.ui import server
from sp_data.ui.server import ServerOptions, is_loopback, listen


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_needs_no_password(host: str) -> None:
    assert is_loopback(host)
    ServerOptions(host=host)


@pytest.mark.parametrize("options", [{"host": "0.0.0.0"}, {"host": "::"}, {"host": "192.168.0.7"}, {"share": True}])
def test_others_are_let_in_with_a_password_only(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="--auth"):
        ServerOptions(**options)  # type: ignore[arg-type]
    known = ServerOptions(**options, auth="kid:paper:cut")  # type: ignore[arg-type]
    assert (known.user, known.password) == ("kid", "paper:cut")
    assert "paper" not in repr(known)


@pytest.mark.parametrize("auth", ["kid", "kid:", ":paper", ":"])
def test_half_a_password_is_none(auth: str) -> None:
    with pytest.raises(UsageError, match="USER:PASSWORD"):
        ServerOptions(auth=auth)


def test_the_next_free_port_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(server, "PORT", port)
        with listen("127.0.0.1", None) as listener:
            assert port < listener.getsockname()[1] < port + server.NUM_PORTS
        with pytest.raises(UsageError, match=f"--port {port} is taken"):
            listen("127.0.0.1", port)
        monkeypatch.setattr(server, "NUM_PORTS", 1)
        with pytest.raises(UsageError, match="are taken"):
            listen("127.0.0.1", None)


def test_a_host_that_is_not_this_machine_is_a_sentence() -> None:
    with pytest.raises(UsageError, match=r"--host 192\.0\.2\.1"):
        listen("192.0.2.1", 0)


def test_it_listens_on_loopback_alone() -> None:
    with listen("localhost", 0) as listener:
        assert listener.family in (socket.AF_INET, socket.AF_INET6)
        assert is_loopback(listener.getsockname()[0])


def test_a_share_goes_through_the_tunnel_and_its_failure_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradio import networking

    from sp_data.errors import StageError

    asked = []
    monkeypatch.setattr(networking, "setup_tunnel", lambda *given: asked.append(given) or "https://x.gradio.live")
    assert server._share("127.0.0.1", 7860) == "https://x.gradio.live"
    assert asked[0][:2] == ("127.0.0.1", 7860)

    def fails(*_: object) -> str:
        raise RuntimeError("no network")

    monkeypatch.setattr(networking, "setup_tunnel", fails)
    with pytest.raises(StageError, match="without --share"):
        server._share("127.0.0.1", 7860)


def test_gradio_is_told_to_keep_quiet_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_SHARE", "True")
    monkeypatch.setenv("GRADIO_ALLOWED_PATHS", "/")
    with server._environment() as folder:
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
        assert not {"GRADIO_SHARE", "GRADIO_ALLOWED_PATHS"} & set(os.environ)
        (folder / "upload.png").write_bytes(b"x")
    assert not folder.exists()
    assert os.environ["GRADIO_SHARE"] == "True"


def test_the_command_s_help_needs_no_gradio() -> None:
    check = "import sys; from sp_data.cli.app import whole_app; whole_app(); print('gradio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_the_command_is_told_wrongly_is_a_sentence(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "sp-data"), "ui", "demo", "--lake", str(tmp_path), "--host", "0.0.0.0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "give --auth USER:PASSWORD" in done.stderr
