"""Build deployments/Dockerfile without Docker: each step in a fresh Debian root, as root on Linux.

    python tests/image.py ROOT [--cache FOLDER]

ROOT is made by debootstrap if it is not there, and then holds what the image would; one that was finished is taken as
it is. The folder --cache is uv's cache, which the builder would mount. The steps see the network of this machine; where
packages come from (PIP_…, UV_…, certificates) is taken from the environment and stays out of the root.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
DOCKERFILE = REPOSITORY / "deployments" / "Dockerfile"
INSTRUCTIONS = frozenset(
    ("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "RUN", "USER", "VOLUME", "WORKDIR")
)
PASSED = re.compile(r"(PIP|UV)_|(HTTPS?|NO)_PROXY$|SSL_CERT_FILE$", re.IGNORECASE)
FINISHED = ".dockerfile"
"""The Dockerfile whose steps all ran, in the root."""
CERTIFICATES = "/run/certificates.crt"


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction, its continued lines joined."""

    word: str
    rest: str


@dataclass(slots=True)
class Image:
    """What the steps so far have set, and the root they have made."""

    root: Path
    user: str = "root"
    folder: str = "/"
    environment: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"}
    )
    volumes: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    def argv(self, command: Sequence[str], more: Mapping[str, str] = {}) -> list[str]:
        """The command line that runs `command` in the root, as the image's user, in a network of its own.

        Only loopback is in that network, so a command that needs another machine fails.
        """
        settings = [f"{name}={value}" for name, value in (self.environment | dict(more)).items()]
        inside = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--init-groups", "--no-new-privs"]
        entered = ["chroot", str(self.root), "env", "-i", "-C", self.folder, *settings, *inside, *command]
        return ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *entered]


def steps(text: str) -> list[Step]:
    """The instructions of a Dockerfile. ValueError for one that `build` does not know."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = [Step(*line.split(None, 1)) for line in joined.splitlines()]
    if unknown := {step.word for step in found} - INSTRUCTIONS:
        raise ValueError(f"{DOCKERFILE.name}: no one here knows what {', '.join(sorted(unknown))} does")
    return found


def build(root: Path, cache: Path) -> Image:
    """Run every step of the Dockerfile; `root` is made first unless it is there."""
    image = Image(root)
    arguments: dict[str, str] = {}
    text, finished = DOCKERFILE.read_text(), root / FINISHED
    known = steps(text)
    if finished.exists() and finished.read_text() == text:
        known = [step for step in known if step.word not in ("FROM", "RUN", "COPY")]
    for step in known:
        print(f"{step.word} {step.rest}", flush=True)
        started = time.monotonic()
        if step.word == "FROM":
            _bootstrap(image, step.rest)
        elif step.word == "ARG":
            name, _, value = step.rest.partition("=")
            arguments[name] = value
        elif step.word == "ENV":
            image.environment |= dict(word.split("=", 1) for word in shlex.split(step.rest))
        elif step.word == "USER":
            image.user = step.rest
        elif step.word == "WORKDIR":
            image.folder = step.rest
            (root / step.rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif step.word == "COPY":
            _copy(image, step.rest)
        elif step.word == "RUN":
            _run(image, step.rest, arguments, cache)
        elif step.word == "VOLUME":
            image.volumes = tuple(json.loads(step.rest))
        elif step.word in ("CMD", "ENTRYPOINT"):
            image.command += tuple(json.loads(step.rest))
        if step.word in ("FROM", "RUN", "COPY"):
            print(f"    done in {time.monotonic() - started:.0f} s", flush=True)
    finished.write_text(text)
    return image


def _bootstrap(image: Image, base: str) -> None:
    """Debian's minimal base, which its container images are made of."""
    suite = base.removeprefix("debian:").removesuffix("-slim")
    if not (image.root / "etc/debian_version").exists():
        subprocess.run(
            ["debootstrap", "--variant=minbase", suite, str(image.root)], check=True, stdout=subprocess.DEVNULL
        )


def _copy(image: Image, rest: str) -> None:
    """What git knows below the named paths, which is what Dockerfile.dockerignore lets through."""
    *sources, target = shlex.split(rest)
    for source in sources:
        for name in _tracked(source):
            inner = target.rstrip("/") + name.removeprefix(source) if (REPOSITORY / source).is_dir() else target + name
            destination = image.root / inner.lstrip("/")
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, destination)


def _tracked(source: str) -> list[str]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", source],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    if not (found := listing.stdout.split("\n")[:-1]):
        raise ValueError(f"COPY {source}: no such file")
    return [name for name in found if not name.endswith(".env")]


def _run(image: Image, rest: str, arguments: Mapping[str, str], cache: Path) -> None:
    mounts = re.findall(r"--mount=type=cache,target=(\S+)", rest)
    shell = re.sub(r"--mount=\S+\s*", "", rest)
    passed, certificates = _of_this_machine()
    with contextlib.ExitStack() as stack:
        for target in mounts:
            cache.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_bound(cache, image.root / target.lstrip("/")))
        stack.enter_context(_bound(Path("/etc/resolv.conf"), image.root / "etc/resolv.conf"))
        stack.enter_context(_bound(Path("/proc"), image.root / "proc"))
        stack.enter_context(_bound(Path("/dev"), image.root / "dev"))
        if certificates:
            stack.enter_context(_bound(certificates, image.root / CERTIFICATES.lstrip("/")))
        settings = [f"{name}={value}" for name, value in {**image.environment, **arguments, **passed}.items()]
        command = ["chroot", str(image.root), "env", "-i", "-C", image.folder, *settings, "/bin/sh", "-c", shell]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def _of_this_machine() -> tuple[dict[str, str], Path | None]:
    """The settings by which this machine reaches packages, and its certificates if it has some of its own."""
    passed = {name: value for name, value in os.environ.items() if PASSED.match(name)}
    # Folders of this machine are not in the root.
    passed = {name: value for name, value in passed.items() if not value.startswith("/")}
    certificates = os.environ.get("SSL_CERT_FILE")
    if certificates:
        passed |= {"SSL_CERT_FILE": CERTIFICATES, "PIP_CERT": CERTIFICATES}
    return passed, Path(certificates) if certificates else None


@contextlib.contextmanager
def _bound(source: Path, target: Path) -> Iterator[None]:
    """Show `source` at `target`, and leave the root as it was."""
    missing = not target.exists()
    if missing:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            target.mkdir()
        else:
            target.touch()
    subprocess.run(["mount", "--rbind" if target.name == "dev" else "--bind", str(source), str(target)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", str(target)], check=True)
        if missing:
            target.rmdir() if target.is_dir() else target.unlink()


@contextlib.contextmanager
def mounted(image: Image) -> Iterator[None]:
    """The kernel's own folders in the root, which a container has too, while commands run in it."""
    with _bound(Path("/proc"), image.root / "proc"), _bound(Path("/dev"), image.root / "dev"):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("/var/tmp/sp-data-image-cache"))
    given = parser.parse_args()
    image = build(given.root, given.cache)
    with mounted(image):
        subprocess.run(image.argv(image.command), check=True)
    print("every step of the Dockerfile ran, and its command")


if __name__ == "__main__":
    main()
