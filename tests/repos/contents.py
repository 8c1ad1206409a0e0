"""The repositories that tests launch. ``BUILDERS["requirements"](folder)`` makes one below `folder` and returns it; each is a few files at most."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

DATE: Final = "2026-01-01T00:00:00+0000"
BASE_IMAGE: Final = "binder-onprem/base"


@dataclass(frozen=True, slots=True)
class Repository:
    """One with a work tree, branch ``main``."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def commit(self) -> str:
        return self.git("rev-parse", "HEAD")

    @classmethod
    def make(cls, folder: Path, name: str, files: Mapping[str, str | bytes]) -> Repository:
        repo = cls(folder / name)
        repo.path.mkdir(parents=True)
        repo.git("init", "--quiet", "--initial-branch=main")
        repo.change(files)
        return repo

    def git(self, *words: str) -> str:
        person = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "T"), ("EMAIL", "t@t"), ("DATE", DATE))}
        environment = {**os.environ, **person, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_ALLOW_PROTOCOL": "file:http"}
        done = subprocess.run(["git", "-C", self.path, *words], env=environment, check=True, capture_output=True, text=True, timeout=120)
        return done.stdout.strip()

    def change(self, files: Mapping[str, str | bytes], message: str = "change") -> str:
        """Write files, commit them all; the commit."""
        for name, data in files.items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        return self.save(message)

    def save(self, message: str = "change") -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", f"--message={message}")
        return self.commit


def notebook(*cells: str) -> str:
    """A notebook of code cells."""
    made = [
        {"cell_type": "code", "id": f"cell-{number}", "metadata": {}, "execution_count": None, "outputs": [], "source": text}
        for number, text in enumerate(cells)
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return json.dumps({"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}, indent=1)


FIGURE: Final = """\
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

table = pd.DataFrame({"x": np.arange(10), "y": np.arange(10) ** 2})
table.plot(x="x", y="y")
plt.show()
"""


def requirements(folder: Path) -> Repository:
    """numpy, pandas, matplotlib, and a notebook that draws with them."""
    return Repository.make(folder, "requirements", {"requirements.txt": "numpy\npandas\nmatplotlib\n", "figure.ipynb": notebook(FIGURE)})


def bare(folder: Path) -> Repository:
    """No environment files."""
    return Repository.make(folder, "bare", {"hello.ipynb": notebook("print(6 * 7)"), "README.md": "# Hello\n"})


def apt(folder: Path) -> Repository:
    """A distribution package, a postBuild that leaves a trace, a start script that sets a variable."""
    repo = Repository.make(folder, "apt", {"apt.txt": "# comment\ntree\n", "hello.ipynb": notebook("import os; print(os.environ['FROM_START'])")})
    scripts = {
        "postBuild": "#!/bin/bash\nset -e\n{ tree --version; which python; } > built-by-postBuild.txt\n",
        "start": '#!/bin/bash\nexport FROM_START=yes\nexec "$@"\n',
    }
    for name, text in scripts.items():
        (repo.path / name).write_text(text)
        (repo.path / name).chmod(0o755)
    repo.save("scripts")
    return repo


def dockerfile(folder: Path) -> Repository:
    """A Dockerfile on the base image."""
    text = (
        f'# syntax=docker/dockerfile:1\nFROM {BASE_IMAGE}\nSHELL ["/bin/bash", "-c"]\nCOPY --chown=1000:1000 . /home/jovyan/\n'
        "RUN --mount=type=cache,target=/tmp/cache [[ bash == b* ]] && echo built > /home/jovyan/built-by-dockerfile.txt\n"
    )
    return Repository.make(folder, "dockerfile", {"Dockerfile": text, "hello.ipynb": notebook("print(open('built-by-dockerfile.txt').read())")})


def failing(folder: Path) -> Repository:
    """A requirement that does not exist."""
    return Repository.make(folder, "failing", {"requirements.txt": "numpy==0.0.0.1\n"})


def submodule(folder: Path) -> Repository:
    """Has ``inner`` as a submodule by a relative URL, so that it is served beside it."""
    inner = Repository.make(folder, "inner", {"inside.txt": "inside\n"})
    repo = Repository.make(folder, "submodule", {"README.md": "outer\n"})
    repo.git("-c", "protocol.file.allow=always", "submodule", "add", "--quiet", f"file://{inner.path}", "inner")
    modules = repo.path / ".gitmodules"
    modules.write_text(modules.read_text().replace(f"file://{inner.path}", "../inner"))
    repo.save("submodule")
    return repo


def branches(folder: Path) -> Repository:
    """Branch ``feature/one`` (one commit on), annotated tag ``v1.0`` and light tag ``light`` on the first commit."""
    repo = Repository.make(folder, "branches", {"where.txt": "main\n"})
    repo.git("tag", "--annotate", "--message=one", "v1.0")
    repo.git("tag", "light")
    repo.git("checkout", "--quiet", "-b", "feature/one")
    repo.change({"where.txt": "feature\n"})
    repo.git("checkout", "--quiet", "main")
    return repo


def huge(folder: Path, size: int = 64 * 1024**2) -> Repository:
    """A file of `size` random bytes."""
    return Repository.make(folder, "huge", {"huge.bin": os.urandom(size)})


def inflating(folder: Path, size: int = 512 * 1024**2) -> Repository:
    """A file of `size` zeros: small on the wire, large when checked out."""
    repo = Repository.make(folder, "inflating", {"README.md": "zeros\n"})
    with (repo.path / "zeros.bin").open("wb") as file:
        file.truncate(size)
    repo.save("zeros")
    (repo.path / "zeros.bin").unlink()
    return repo


def many(folder: Path, count: int = 20000) -> Repository:
    """Many small files in many directories."""
    return Repository.make(folder, "many", {f"d{number % 100}/f{number}.txt": f"{number}\n" for number in range(count)})


def symlinks(folder: Path) -> Repository:
    """Links out of the tree, where a careless reader or writer would follow them."""
    repo = Repository.make(folder, "symlinks", {"README.md": "links\n"})
    for name, target in {"passwd": "/etc/passwd", "up": "../../../..", "requirements.txt": "/etc/hostname", "loop": "loop"}.items():
        (repo.path / name).symlink_to(target)
    repo.save("links")
    return repo


BUILDERS: Final[dict[str, Callable[[Path], Repository]]] = {
    made.__name__: made for made in (requirements, bare, apt, dockerfile, failing, submodule, branches, huge, inflating, many, symlinks)
}
