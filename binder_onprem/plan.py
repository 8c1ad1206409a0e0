"""What preparing a repository yields: the layers to put on the base image, or a Dockerfile that repo2docker rendered.

Written as JSON by the sandbox (`engine`), which is hostile by then: `Plan.read` believes nothing about it. Beside ``plan.json`` lie ``src/``,
the repository's files, and for a Dockerfile ``context/``, the build context.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from binder_onprem.errors import BuildFailed

if TYPE_CHECKING:
    from pathlib import Path

PLAN_BYTES = 4 * 1024**2
UV = "Python (uv on the base image)"
CONDA_BY_UV = "environment.yml from PyPI (uv on the base image)"


@dataclass(frozen=True, slots=True)
class Step:
    """One layer.

    Attributes:
        name: For the log: ``apt packages``.
        kind: ``run``: a script in a container of the layers so far; ``content``: the repository's files become the layer, nothing is run.
        key: 64 hex digits over everything that shapes this layer besides the layers below it; "" means it is never reused.
        user: Who runs the script.
        script: Bash, run with ``-e -o pipefail`` in the repository's directory (or /home/jovyan before the content is there), with `files` of
            the repository readable below ``/binder``.
        files: Paths in ``src/`` that the script reads before the content is in the image.
    """

    name: str
    kind: Literal["run", "content"]
    key: str
    user: Literal["root", "jovyan"] = "jovyan"
    script: str = ""
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """How to make the image.

    Attributes:
        buildpack: Name for the log.
        kind: ``layers`` (our fast Python path) or ``dockerfile`` (everything else).
        steps: For ``layers``, bottom first.
        env: Environment of the image, for ``layers``.
        entrypoint: Entry point of the image, for ``layers``; empty: the base image's.
        notices: Sentences for the page.
        bytes: Size of ``src/``.
    """

    buildpack: str
    kind: Literal["layers", "dockerfile"]
    steps: tuple[Step, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    entrypoint: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    bytes: int = 0

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read what the sandbox wrote; a plan that is not one is the repository's fault.

        Raises:
            BuildFailed: Missing, too large, not of this form.
        """
        try:
            if path.is_symlink() or path.stat().st_size > PLAN_BYTES:
                raise ValueError("not a plan")
            return _plan(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise BuildFailed("The repository could not be examined: repo2docker gave no plan for it. See the log.") from error


def _plan(data: dict[str, Any]) -> Plan:
    if data["kind"] not in ("layers", "dockerfile"):
        raise ValueError("kind")
    return Plan(
        buildpack=_text(data["buildpack"]),
        kind=data["kind"],
        steps=tuple(_step(step) for step in data["steps"]),
        env=tuple((_text(name), _text(value)) for name, value in data["env"]),
        entrypoint=tuple(_text(word) for word in data["entrypoint"]),
        notices=tuple(_text(notice) for notice in data["notices"]),
        bytes=int(data["bytes"]),
    )


def _step(data: dict[str, Any]) -> Step:
    if data["kind"] not in ("run", "content") or data["user"] not in ("root", "jovyan"):
        raise ValueError("step")
    files = tuple(_text(name) for name in data["files"])
    if any(name.startswith("/") or ".." in name.split("/") for name in files):
        raise ValueError("files")
    return Step(_text(data["name"]), data["kind"], _text(data["key"]), data["user"], _text(data["script"]), files)


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise TypeError("text")
    return value
