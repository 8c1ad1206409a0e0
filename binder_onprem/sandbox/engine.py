"""repo2docker as a function from a repository to a build context.

Called by `examine` in the sandbox, for whatever our own buildpack does not take; imported only then, because repo2docker's import is slow.
`ContextEngine` is also repo2docker's engine ``context`` (entry point), for use by its command line. It never builds, runs or pushes anything.
"""

from __future__ import annotations

import logging
import os
import shutil
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import requests
from repo2docker import contentproviders
from repo2docker.app import Repo2Docker
from repo2docker.buildpacks import DockerBuildPack
from repo2docker.engine import ContainerEngine

from binder_onprem.errors import BuildFailed
from binder_onprem.sandbox import needs
from binder_onprem.sandbox.buildpack import Environment
from binder_onprem.sandbox.redirection import buildpacks, redirect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

TARGET_VARIABLE: Final = "BINDER_ONPREM_CONTEXT"


class ContextEngine(ContainerEngine):  # type: ignore[misc]  # repo2docker has no annotations
    """Writes the build context to the directory that ``BINDER_ONPREM_CONTEXT`` names instead of building it."""

    def inspect_image(self, image: str) -> None:
        """No image is ever there."""
        del image

    def build(self, *, fileobj: Any = None, path: str = "", dockerfile: str = "", **_: Any) -> Iterator[str]:
        """Write the context: from the tar that repo2docker made, or of the repository with a Dockerfile of its own.

        Args:
            fileobj: Tar with Dockerfile, build scripts and ``src/``.
            path: The repository.
            dockerfile: Path of the Dockerfile below it.
        """
        target = Path(os.environ[TARGET_VARIABLE])
        target.mkdir()
        if fileobj is not None:
            _unpack(fileobj, target, Path.cwd())
        else:
            shutil.copytree(path, target, symlinks=True, copy_function=_link, dirs_exist_ok=True)
            own = Path(path, dockerfile).read_bytes()
            (target / "Dockerfile").unlink(missing_ok=True)
            (target / "Dockerfile").write_bytes(own)
        yield "The build context is written.\n"


def _link(source: str, target: str) -> None:
    # The same bytes on the same file system: they count once against the limit.
    os.link(source, target, follow_symlinks=False)


def _unpack(fileobj: Any, target: Path, source: Path) -> None:
    with tarfile.open(fileobj=fileobj) as archive:
        for member in archive:
            place = target / member.name
            place.parent.mkdir(parents=True, exist_ok=True)
            content = archive.extractfile(member) if member.isreg() else None
            if member.isdir():
                place.mkdir(exist_ok=True)
            elif member.name.startswith("src/"):
                # Hard links in the tar, too: the file is here under each of its names.
                _link(str(source / member.name.removeprefix("src/")), str(place))
            elif content:
                place.write_bytes(content.read())
                place.chmod(member.mode & 0o777)


class Renderer(Repo2Docker):  # type: ignore[misc]  # repo2docker has no annotations
    """repo2docker that looks at a local directory only and writes a context."""

    def get_engine(self) -> ContextEngine:
        """Ours, without the search through all installed packages."""
        return ContextEngine(parent=self)


class _Session(requests.Session):
    """What repo2docker asks the network with: an answer is had soon or not at all."""

    def request(self, *words: Any, **options: Any) -> requests.Response:
        """As in `requests`, with a limit of time."""
        return super().request(*words, **{**options, "timeout": needs.TIMEOUT})


class _Handler(logging.Handler):
    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage().rstrip())


def render(repository: Path, context: Path, base_image: str, say: Callable[[str], None], mirrors: Mapping[str, str]) -> str:
    """Let repo2docker detect the buildpack and write the context.

    Args:
        repository: The checked-out repository.
        context: Directory to make.
        base_image: What repo2docker's own buildpacks stand on.
        say: Gets each line for the log.
        mirrors: This site's, by name: ``conda``, ``cran``.

    Returns:
        The buildpack's name.

    Raises:
        BuildFailed: repo2docker does not accept the environment files (its own words, which name the file), or asks the network in vain.
    """
    os.environ[TARGET_VARIABLE] = str(context)
    requests.sessions.Session = _Session  # type: ignore[misc]  # what requests.get and requests.post make anew each time
    app = Renderer(
        repo=str(repository),
        content_providers=[contentproviders.Local],
        output_image_spec="context",
        base_image=base_image,
        user_id=1000,
        user_name="jovyan",
        run=False,
        push=False,
        cleanup_checkout=False,
    )
    app.buildpacks = buildpacks(app.buildpacks, mirrors)
    app.log = logging.getLogger("repo2docker")
    app.log.setLevel(logging.INFO)
    app.log.handlers = [_Handler(say)]
    app.log.propagate = False
    name = ""
    try:
        name = _picked(app, repository)
        app.build()
    except Exception as error:
        host = needs.unreached(error)
        if host is not None:
            raise BuildFailed(needs.sentence(name, Environment.of(repository), (host,), mirrors)) from error
        if isinstance(error, OSError):
            raise
        words = " ".join(str(error).replace(str(repository), "the repository").split())[:300]
        raise BuildFailed(f"repo2docker does not accept the repository's environment files: {words}") from error
    if name != "Dockerfile":
        redirect(context, mirrors)
    return name


def _picked(app: Renderer, repository: Path) -> str:
    before = Path.cwd()
    os.chdir(repository)
    try:
        for buildpack in app.buildpacks:
            if buildpack(base_image="").detect():
                return "Dockerfile" if issubclass(buildpack, DockerBuildPack) else str(buildpack.__name__)
    finally:
        os.chdir(before)
    return "PythonBuildPack"
