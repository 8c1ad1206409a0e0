"""What runs in the sandbox: clone a repository, decide how to build it, write the plan.

Started by `prepare` as ``python -m binder_onprem.sandbox.examine REQUEST`` in a throw-away container; REQUEST is JSON. Writes ``src/``, ``plan.json``
and perhaps ``context/`` into the output directory. Each line of its output begins with a letter: a phase, or the failure. Imports little,
because its start is part of every build's time.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from binder_onprem import errors
from binder_onprem.plan import Plan
from binder_onprem.sandbox import condapypi, needs
from binder_onprem.sandbox.buildpack import Environment, decide
from binder_onprem.sandbox.clone import Clone, Source

if TYPE_CHECKING:
    from collections.abc import Sequence

FETCHING: Final = "F"
BUILDING: Final = "B"
FAILURE: Final = "X"
"""Letter of the last line of a failure: JSON with ``code`` and ``message``."""
FAILED: Final = 3
"""Exit code after such a line."""


def main(words: list[str]) -> int:
    """Examine the repository that the request names.

    Args:
        words: The request, as JSON: ``url``, ``commit``, ``stall`` (seconds), ``limit`` (bytes), ``output`` (directory), ``python``
            (version or ""), ``ssh`` (directory with key and known hosts, or ""), ``credential`` (directory with the
            file of that name, or ""), ``base`` (image for repo2docker's own buildpacks),
            ``mirrors`` (URLs by name), ``gate`` (socket of the builds' gate, or ""), ``pypi`` (the site's further names of conda's packages on
            PyPI where an environment.yml is built from there, else None), ``content`` (name of a file in the output directory that holds what
            to fetch instead of cloning, or "").

    Returns:
        0, or `FAILED`.
    """
    request = json.loads(words[0])
    output = Path(request["output"])
    # Large temporary files belong where there is room, and a limit.
    os.environ["TMPDIR"] = str(output)
    try:
        _examined(request, output)
    except (errors.BinderError, OSError, RecursionError) as error:
        _failed(error, request, output)
        return FAILED
    return 0


def _examined(request: dict[str, Any], output: Path) -> None:
    source = output / "src"
    if request["content"]:
        _fetched(request, output, source)
    else:
        wanted = Source(request["url"], request["commit"], request["stall"], request["limit"], request["ssh"], request["credential"])
        Clone(wanted, source, lambda line: _say(FETCHING, line)).make()
    Environment.of(source)
    plan, notices = decide(source, _python(request))
    if plan is None:
        plan = _planned(request, output, source, notices)
    replace(plan, bytes=_size(source)).write(output / "plan.json")


def _fetched(request: dict[str, Any], output: Path, source: Path) -> None:
    """What is not git."""
    from binder_onprem.content import Content  # noqa: PLC0415 - git is the usual case, and these imports are slow

    content = Content.read(json.loads((output / request["content"]).read_text(encoding="utf-8")))
    if content.kind == "mercurial":
        from binder_onprem.sandbox.mercurial import clone  # noqa: PLC0415

        clone(request["url"], request["commit"], source, lambda line: _say(FETCHING, line), request["stall"], request["limit"])
        return
    from binder_onprem.sandbox.fetch import Fetch  # noqa: PLC0415

    Fetch(content, output, lambda line: _say(FETCHING, line), request["stall"], request["limit"]).make(source)


def _planned(request: dict[str, Any], output: Path, source: Path, notices: tuple[str, ...]) -> Plan:
    """An environment.yml from PyPI where the site wants that and can, everything else by repo2docker."""
    further, environment = condapypi.further_of(request), Environment.of(source)
    name = condapypi.file_of(environment) if further is not None else None
    if further is None or name is None:
        return _rendered(request, output, source, notices)
    found = condapypi.plan(environment, name, _python(request), further)
    if isinstance(found, Plan):
        return replace(found, notices=(*notices, *found.notices))
    return _rendered(request, output, source, notices, found)


def _python(request: dict[str, Any]) -> str:
    return request["python"] or f"{sys.version_info.major}.{sys.version_info.minor}"


def _rendered(request: dict[str, Any], output: Path, source: Path, notices: tuple[str, ...], missing: Sequence[str] = ()) -> Plan:
    from binder_onprem.sandbox.engine import render  # noqa: PLC0415 - repo2docker's import takes longer than everything else here

    environment = Environment.of(source)
    more = []
    if environment.has("Dockerfile"):
        more.append("The repository brings its own Dockerfile: it is built as it is, without our faster path.")
    elif not request["mirrors"].get("conda") and (environment.has("environment.yml") or environment.has("environment.yaml")):
        more.append("environment.yml asks for conda packages, and this site has no conda mirror: they come from the public channels, if at all.")
    if missing:
        more.append(condapypi.against(missing))
    try:
        name = render(source, output / "context", request["base"], lambda line: _say(BUILDING, line), request["mirrors"])
        if name != "Dockerfile":
            _reached(name, environment, output / "context", request)
    except errors.BuildFailed as error:
        if not missing:
            raise
        # What stood against the other way is what one can do something about.
        raise errors.BuildFailed(f"{error.message} {condapypi.against(missing)}") from error
    if name == "RBuildPack" and request["mirrors"].get("cran"):
        more.append("R packages come from this site's CRAN mirror as they are there now, not as they were on the date that the repository names.")
    return Plan(name, "dockerfile", notices=(*notices, *more))


def _reached(name: str, environment: Environment, context: Path, request: dict[str, Any]) -> None:
    """Raise BuildFailed when the build would fetch from a host that builds do not reach."""
    gate = request["gate"]
    if not gate or not os.path.exists(gate):  # noqa: PTH110 - imports little
        return
    missing = needs.silent(needs.origins(context), gate)
    if missing:
        _say(BUILDING, f"Not reached: {', '.join(missing)}")
        raise errors.BuildFailed(needs.sentence(name, environment, missing, request["mirrors"]))


def _size(top: Path) -> int:
    total, waiting = 0, [str(top)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def _failed(error: Exception, request: dict[str, Any], output: Path) -> None:
    if isinstance(error, errors.BinderError):
        told = {"code": error.code, "message": error.message}
    else:
        free = os.statvfs(output)
        what = "has too many files" if free.f_favail == 0 else f"is larger than {request['limit'] / 1024**2:,.0f} MiB"
        full = isinstance(error, OSError) and error.errno in (28, 122)
        text = f"The repository {what}, which is the limit here (build.repository)." if full else "The repository's files cannot be read."
        told = {"code": errors.LimitHit.code if full else errors.BuildFailed.code, "message": text}
        _say(BUILDING, f"{type(error).__name__}: {error}".replace(str(output), ""))
    # As a line, not as a file: the file system may be what is full.
    _say(FAILURE, json.dumps(told))


def _say(phase: str, line: str) -> None:
    for part in line.splitlines() or [""]:
        sys.stdout.write(f"{phase}{part}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
