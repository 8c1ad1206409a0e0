"""``python -m tests.bench [--home HOME] [--runs N]``: prints the table; exit 1 if a figure is over its limit or not valid, 2 without a Binder."""

from __future__ import annotations

import argparse
import socket
import sys
import tempfile
import time
import urllib.error
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from binder_onprem import config as configuration
from tests.bench.binder import CheckFailed, Clicked, Podman, check_content, click, leave
from tests.bench.figures import Figure, Series, table
from tests.repos import GitServer, Repository
from tests.repos.contents import FIGURE, notebook

if TYPE_CHECKING:
    from collections.abc import Callable

    from binder_onprem.config import Config

REQUIREMENTS = "numpy\npandas\nmatplotlib\n"
console = Console(width=150)


class Bench:
    """One run of all measurements."""

    def __init__(self, config: Config, folder: Path, server: GitServer) -> None:
        self.config, self.folder, self.server = config, folder, server
        self.podman = Podman(config)
        # The nonce keeps images of earlier runs from being taken for this one's.
        self.nonce = f"{time.time_ns():x}"

    def starts(self, runs: int) -> Figure:
        """Click → answering server, image local, against plain podman on the same image; alternating."""
        ours, plain = Series("click → api/status"), Series("podman run → api/status")
        repo = Repository.make(self.folder, "start", {"hello.ipynb": notebook(f"print('{self.nonce}')")})
        first = click(self.config, self.server.url(repo.name))
        image = self.podman.image_of(first.user)
        leave(self.config, first.user)
        with self.podman.session(image, free_port()):
            pass  # the first start of an image may re-own its layers
        for _ in range(runs):
            timed(ours, lambda: self._click(repo, unbuilt=False))
            timed(plain, lambda: self._plain(image))
        return Figure("server start", ours, plain, 1.3)

    def builds(self, runs: int) -> Figure:
        """A small repository built from nothing, against uv and a commit by hand; alternating, downloads not kept on either side."""
        ours, plain = Series("build of numpy, pandas, matplotlib"), Series("uv pip install + commit")
        for number in range(runs):
            # Never installed anywhere, but other text than in any earlier run: no layer of one can be taken.
            requirements = f"{REQUIREMENTS}six ; platform_version == '{self.nonce}-{number}'\n"
            files = {"requirements.txt": requirements, "hello.ipynb": notebook(f"# {self.nonce}\n{FIGURE}")}
            repo = Repository.make(self.folder, f"build{number}", files)
            timed(ours, lambda repo=repo: self._click(repo, unbuilt=True))  # type: ignore[misc]
            timed(plain, lambda: self.podman.install(repo.path / "requirements.txt"))  # noqa: B023 - called at once
        return Figure("build", ours, plain, 1.5)

    def edits(self, runs: int, start: float) -> Figure:
        """A commit that edits only the notebook, from the click until the session answers, less a plain server start."""
        ours = Series(f"notebook edited → api/status, less {start:.2f} s")
        repo = Repository(self.folder / "build0")
        for number in range(runs):
            repo.change({"hello.ipynb": notebook(f"# edit {number}\n{FIGURE}")})
            # A branch that nobody has asked for yet: what is known of HEAD may be believed for a minute.
            repo.git("branch", f"edit-{number}")
            timed(ours, lambda number=number: self._click(repo, f"edit {number}", f"edit-{number}") - start)  # type: ignore[misc]
        return Figure("notebook edit", ours, None, 3)

    def _click(self, repo: Repository, holds: str = "", ref: str = "HEAD", *, unbuilt: bool | None = None) -> float:
        clicked: Clicked = click(self.config, self.server.url(repo.name), ref)
        try:
            check_content(clicked.url, clicked.token, "hello.ipynb", holds or self.nonce)
            if unbuilt is not None and unbuilt != (clicked.built is not None):
                raise CheckFailed("it was built" if clicked.built is not None else "nothing was built")
            return clicked.built if unbuilt and clicked.built is not None else clicked.seconds
        finally:
            leave(self.config, clicked.user)

    def _plain(self, image: str) -> float:
        with self.podman.session(image, free_port()) as (url, token, seconds):
            check_content(url, token, "hello.ipynb", self.nonce)
            return seconds


def timed(series: Series, run: Callable[[], float]) -> None:
    """Run once and write down what came of it."""
    try:
        series.seconds.append(run())
        console.print(f"  {series.name}: {series.seconds[-1]:.2f} s")
    except (CheckFailed, OSError, ValueError, KeyError) as error:
        series.failures.append(str(error))
        console.print(f"  {series.name}: failed: {error}", markup=False)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def measured(config: Config, runs: int, builds: int) -> list[Figure]:
    """All figures, in the order in which they are printed."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, GitServer(Path(folder)) as server:
        bench = Bench(config, Path(folder), server)
        starts = bench.starts(runs)
        figures = [starts, bench.builds(builds)]
        if starts.plain and starts.plain.seconds:
            figures.append(bench.edits(builds, starts.plain.median))
    return figures


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--home", type=Path, help="of the Binder to measure")
    parser.add_argument("--runs", type=int, default=10, help="server starts of each kind")
    parser.add_argument("--builds", type=int, default=3, help="builds of each kind")
    options = parser.parse_args()
    try:
        figures = measured(configuration.load(home=options.home), options.runs, options.builds)
    except (CheckFailed, urllib.error.URLError, ConnectionError) as error:
        console.print(f"No figures: {error}. A Binder must be up, with loopback in network.allow (`make up` has both).", markup=False)
        return 2
    console.print(table(figures))
    return 0 if all(figure.kept for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
