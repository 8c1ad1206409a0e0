"""repo2docker's own buildpacks: what they would fetch, from where, and what people are told when it cannot be had."""

from __future__ import annotations

import socket
import threading
import time
import warnings
from typing import TYPE_CHECKING

import pytest
import requests

from binder_onprem.building.advice import Advice
from binder_onprem.building.reports import failed
from binder_onprem.errors import BuildFailed
from binder_onprem.sandbox import needs
from binder_onprem.sandbox.buildpack import Environment

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # repo2docker's own imports
    from binder_onprem.sandbox.engine import render

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONDA, CRAN = "http://conda.example:81/mirror", "https://cran.example/r"


@pytest.fixture(autouse=True)
def _sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests.sessions, "Session", requests.Session)  # put back what `render` changes
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("https_proxy", raising=False)


def rendered(tmp_path: Path, files: dict[str, str], **mirrors: str) -> tuple[str, Path]:
    source, context = tmp_path / "src", tmp_path / "context"
    source.mkdir()
    for name, text in files.items():
        (source / name).write_text(text)
    return render(source, context, "base", lambda _: None, mirrors), context


def test_conda_asks_the_mirror_and_nothing_else(tmp_path: Path) -> None:
    name, context = rendered(tmp_path, {"environment.yml": "dependencies: [numpy]"}, conda=CONDA)
    assert name == "CondaBuildPack"
    assert needs.origins(context) == ("http://conda.example:81",)
    scripts = "".join(file.read_text() for file in (context / "build_script_files").iterdir())
    assert f'URL="{CONDA}/conda-forge/${{CONDA_PLATFORM}}/micromamba-${{MAMBA_VERSION}}-0.tar.bz2"' in scripts
    assert scripts.count(f"\n{CONDA}/conda-forge/") > 100


def test_without_a_mirror_it_is_the_public_channels(tmp_path: Path) -> None:
    _, context = rendered(tmp_path, {"runtime.txt": "python-3.9"})
    assert len(needs.origins(context)) == 2


def test_r_takes_its_packages_from_the_mirror_and_itself_from_this_distribution(tmp_path: Path) -> None:
    name, context = rendered(tmp_path, {"runtime.txt": "r-4.2-2023-01-01", "install.R": ""}, conda=CONDA, cran=CRAN)
    dockerfile = (context / "Dockerfile").read_text()
    assert name == "RBuildPack"
    assert f"echo {CRAN} | envsubst" in dockerfile
    assert "/$(. /etc/os-release && echo $ID-$VERSION_ID |" in dockerfile
    assert "/ubuntu-$" not in dockerfile


@pytest.mark.parametrize(
    ("files", "word"), [({"DESCRIPTION": "Package: x"}, "DESCRIPTION needs R"), ({"Project.toml": ""}, "Project.toml needs Julia")]
)
def test_a_network_that_is_missed_while_rendering_is_said_in_plain_words(tmp_path: Path, files: dict[str, str], word: str) -> None:
    with pytest.raises(BuildFailed, match=word) as caught:
        rendered(tmp_path, files)
    assert "no answer from" in caught.value.message


@pytest.mark.parametrize(
    ("buildpack", "files", "words"),
    [
        ("CondaBuildPack", {"environment.yml": ""}, ("environment.yml needs packages from a conda channel", "set mirrors.conda", "requirements.txt")),
        ("PythonBuildPack", {"runtime.txt": "python-3.8\n"}, ("runtime.txt (python-3.8)", "set mirrors.conda")),
        ("PipfileBuildPack", {"Pipfile": ""}, ("Pipfile needs another Python",)),
        ("NixBuildPack", {"default.nix": ""}, ("default.nix needs Nix",)),
        ("RBuildPack", {"runtime.txt": "r-4.4-2024-01-01"}, ("runtime.txt needs R", "mirrors.cran")),
    ],
)
def test_each_is_named(tmp_path: Path, buildpack: str, files: dict[str, str], words: tuple[str, ...]) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    said = needs.sentence(buildpack, Environment.of(tmp_path), ("x.example",), {})
    assert all(word in said for word in (*words, "x.example"))
    assert "does not answer" in needs.sentence(buildpack, Environment.of(tmp_path), ("x.example",), {"conda": "https://x.example/"})


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[str]:
    """One that lets good.example pass, refuses others, and keeps slow.example waiting."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "gate"))
        listening.listen()
        threading.Thread(target=_answering, args=(listening,), daemon=True).start()
        yield str(tmp_path / "gate")


def _answering(listening: socket.socket) -> None:
    held = []
    for _ in range(4):
        connection, _ = listening.accept()
        held.append(connection)
        request = connection.recv(1000)
        if b"slow" not in request:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" if b"good" in request else b"HTTP/1.1 403 The address rules of this site\r\n\r\n")
    for connection in held:
        connection.close()


def test_who_answers_is_known_within_seconds(gate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "TIMEOUT", 0.3)
    begun = time.monotonic()
    wanted = ("https://good.example", "http://good.example:81", "https://bad.example")
    assert needs.silent((*wanted, "https://slow.example"), gate) == ("bad.example", "slow.example")
    assert needs.silent(("https://good.example",), "/nowhere") == ("good.example",)
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            'error building at STEP "RUN apt-get x && echo "a": b": error while running runtime: exit status 100',
            'RUN apt-get x && echo "a": b: failed with exit status 100. ',
        ),
        ('building at STEP "RUN a\x1b[31m\n b": while running runtime: exit status 1', "RUN a [31m b: failed with exit status 1. "),
        ('error building at STEP "COPY x y": checking on sources under "/secret/path": no', "COPY x y: failed. The last"),
        (f'error building at STEP "RUN {"x" * 5000}": error while running runtime: exit status 7', f"RUN {'x' * 116} …: failed with exit status 7. "),
        ("error creating /secret/path", "The build failed. The last"),
    ],
)
def test_the_step_that_failed_is_named(words: str, said: str) -> None:
    message = failed(words, Advice()).message
    assert message.startswith(said)
    assert "/secret" not in message
