"""Our fast Python buildpack: from a repository's environment files to the layers that go onto the base image.

Called in the sandbox by `examine`, before repo2docker is even imported; pure apart from reading files of the repository. It takes exactly those
repositories that repo2docker would give to its Python or Pipfile buildpack (or to none), and whose Python the base image has; for everything
else it returns None and repo2docker decides. Never runs anything of the repository.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from binder_onprem.errors import BuildFailed
from binder_onprem.model import fingerprint
from binder_onprem.plan import UV, Plan, Step
from binder_onprem.sandbox import pipfile, requirements
from binder_onprem.sandbox.requirements import Requirements, content, logical_lines, text
from binder_onprem.sandbox.scripts import apt_script, install_script, package_script, post_build_script

if TYPE_CHECKING:
    from pathlib import Path

HOME: Final = "/home/jovyan"
STOCK: Final = ("Dockerfile", "Project.toml", "JuliaProject.toml", "REQUIRE", "default.nix", "environment.yml", "environment.yaml")
OURS: Final = ("requirements.txt", "Pipfile", "Pipfile.lock", "apt.txt", "runtime.txt", "postBuild", "start", "install.R")
NO_R: Final = "install.R is not run, because runtime.txt does not ask for R. Write a line like r-4.4-2024-10-01 into it."
_RUNTIME: Final = re.compile(r"(?P<name>[^-\s]+)(?:-(?P<version>[^-\s]+))?(?:-(?P<date>\d{4}-\d{2}-\d{2}))?")
_PACKAGE: Final = re.compile(r"[a-z0-9][a-z0-9.+-]+(=[A-Za-z0-9.+:~-]+)?")


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a repository keeps its environment files.

    Attributes:
        root: The repository, resolved.
        folder: ``binder``, ``.binder`` or "" for the top.
    """

    root: Path
    folder: str

    @classmethod
    def of(cls, root: Path) -> Environment:
        """Find it as repo2docker does.

        Raises:
            BuildFailed: Both folders exist, or the one there is leads out of the repository.
        """
        folders = [name for name in ("binder", ".binder") if (root / name).is_dir()]
        if len(folders) > 1:
            raise BuildFailed("The repository has both a 'binder' and a '.binder' directory. Keep only one of them.")
        real = root.resolve()
        if folders and not (root / folders[0]).resolve().is_relative_to(real):
            raise BuildFailed(f"'{folders[0]}' leads out of the repository. Put the environment files into the repository itself.")
        return cls(real, folders[0] if folders else "")

    def path(self, name: str) -> Path:
        """Where a file of this name would be."""
        return self.root / self.folder / name

    def has(self, name: str) -> bool:
        """Whether it exists; a link that leads nowhere does not."""
        return self.path(name).exists()

    def inside(self, name: str) -> str:
        """Path below the repository, ``binder/postBuild``."""
        return f"{self.folder}/{name}" if self.folder else name

    @property
    def entry(self) -> tuple[tuple[str, str], ...]:
        """The variable by which the base image's entry point knows the script ``start``, where there is one."""
        return (("R2D_ENTRYPOINT", f"{HOME}/{self.inside('start')}"),) if self.has("start") else ()

    def read(self, name: str) -> str | None:
        """Its text, None when it does not exist."""
        return text(self.root, self.path(name)) if self.has(name) else None


def decide(root: Path, python: str) -> tuple[Plan | None, tuple[str, ...]]:
    """Plan the layers, or leave the repository to repo2docker.

    Args:
        root: The checked-out repository.
        python: Version of the base image's Python, ``3.11``.

    Returns:
        The plan (its `bytes` are left to the caller) or None, and the notices to show in either case.

    Raises:
        BuildFailed: An environment file does not hold; says which and what to do.
    """
    environment = Environment.of(root)
    notices = _ignored(environment)
    if any(environment.has(name) for name in STOCK) or legacy(environment) or (not environment.folder and (root / "DESCRIPTION").exists()):
        return None, notices
    project = _project(environment)
    piped = pipfile.read(environment.root, environment.path("")) if environment.has("Pipfile") or environment.has("Pipfile.lock") else None
    other = _other_python(environment, project, piped[1] if piped else None, python)
    if other is not None:
        return None, (*notices, *([other] if other else []))
    wanted = piped[0] if piped else _listed(environment)
    steps = _steps(environment, wanted, None if piped else project)
    notices = (*notices, *wanted.notices, *([NO_R] if environment.has("install.R") else []))
    return Plan(UV, "layers", steps, (("REPO_DIR", HOME), *environment.entry), (), notices), notices


def _ignored(environment: Environment) -> tuple[str, ...]:
    if not environment.folder:
        return ()
    names = [name for name in (*OURS, *STOCK, "pyproject.toml", "setup.py") if (environment.root / name).is_file()]
    if not names:
        return ()
    return (f"Ignored because the directory '{environment.folder}' exists: {', '.join(names)}.",)


def legacy(environment: Environment) -> bool:
    """A Dockerfile at the top counts for repo2docker, even beside a binder directory, when it is of the first Binder's kind."""
    path = environment.root / "Dockerfile"
    return path.is_file() and "andrewosh/binder-base" in text(environment.root, path).lower()


def _project(environment: Environment) -> dict[str, Any] | None:
    """``pyproject.toml`` of the top, {} for a lone ``setup.py``, None where there is no package; a binder directory hides both."""
    if environment.folder:
        return None
    data: dict[str, Any] = {}
    if environment.has("pyproject.toml"):
        try:
            data = tomllib.loads(environment.read("pyproject.toml") or "")
        except (ValueError, RecursionError):
            raise BuildFailed("pyproject.toml is not valid TOML. Correct it and try again.") from None
    is_package = environment.has("setup.py") or ("project" in data and "build-system" in data)
    return data if is_package or "project" in data else None


def _is_package(environment: Environment, project: dict[str, Any] | None) -> bool:
    return project is not None and (environment.has("setup.py") or "build-system" in project)


def _other_python(environment: Environment, project: dict[str, Any] | None, piped: str | None, python: str) -> str | None:
    """A sentence (or "") when repo2docker must decide because another Python, or another language, is asked for; None when ours will do."""
    runtime = (environment.read("runtime.txt") or "").strip()
    match = _RUNTIME.fullmatch(runtime)
    if runtime and (not match or match["name"] != "python"):
        return ""
    asked = piped or (match["version"] if match else None)
    if asked and not _same(asked, python):
        return f"The repository asks for Python {asked[:20]}, the base image has {python}: it is built by repo2docker with conda, which takes longer."
    needed = (project or {}).get("project", {})
    needed = needed.get("requires-python") if isinstance(needed, dict) else None
    if needed and not asked and not _suits(str(needed), python):
        return f"pyproject.toml does not allow Python {python} of the base image: it is built by repo2docker with conda, which takes longer."
    return None


def _same(asked: str, python: str) -> bool:
    parts = asked.split(".")[:2]
    return parts == python.split(".")[: len(parts)]


def _suits(needed: str, python: str) -> bool:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # noqa: PLC0415 - few repositories need it, and every build would pay for it

    try:
        # 3.11 must satisfy >=3.11.2 too: the base has a patch release that is higher than any that is asked for in practice.
        return SpecifierSet(needed).contains(f"{python}.99") or SpecifierSet(needed).contains(python)
    except InvalidSpecifier:
        raise BuildFailed("requires-python in pyproject.toml is not a valid version specifier. Correct it and try again.") from None


def _listed(environment: Environment) -> Requirements:
    return requirements.read(environment.root, environment.path("requirements.txt")) if environment.has("requirements.txt") else Requirements()


def _steps(environment: Environment, wanted: Requirements, project: dict[str, Any] | None) -> tuple[Step, ...]:
    before = [apt(environment.read("apt.txt")), _python_step("python packages", wanted, local=False)]
    after: list[Step | None] = [Step("content", "content", "", "jovyan")]
    if wanted.local:
        after.append(_python_step("python packages of the repository", wanted, local=True))
    if project is not None and _is_package(environment, project):
        static = _dependencies(project)
        before.append(_python_step("dependencies of the package", Requirements(lines=static or []), local=False))
        if not _installs_itself(wanted):
            after.append(Step("the package", "run", "", "jovyan", package_script(dependencies=static is None)))
    if environment.has("start"):
        _runnable(environment, "start")
    after.append(post_build(environment))
    return tuple(step for step in (*before, *after) if step)


def post_build(environment: Environment) -> Step | None:
    """The layer of ``postBuild``, where there is one. Raises `BuildFailed` when it leads out of the repository or no Linux runs it."""
    if not environment.has("postBuild"):
        return None
    _runnable(environment, "postBuild")
    return Step("postBuild", "run", "", "jovyan", post_build_script(environment.inside("postBuild")))


def _runnable(environment: Environment, name: str) -> None:
    """Refuse a script that no Linux runs: the system would look for an interpreter whose name ends with a carriage return."""
    first, *_ = content(environment.root, environment.path(name)).split(b"\n", 1)
    if first.endswith(b"\r"):
        path = environment.inside(name)
        raise BuildFailed(f"{path} has Windows line ends (CR LF), with which Linux cannot run it. Save it with Unix line ends (LF).")


def _installs_itself(wanted: Requirements) -> bool:
    """Whether the requirements name the repository itself: ``.``, ``-e .``, ``-e ./[extra]``."""
    return any(re.fullmatch(r"(-e\s+)?\./?(\[[^\]]*\])?", line) for line in wanted.local)


def apt(listed: str | None) -> Step | None:
    """The layer of ``apt.txt``, None for an empty one. Raises `BuildFailed` for a word that is no package's name."""
    words = sorted({word for line in logical_lines(listed or "") for word in line.split()})
    for word in words:
        if not _PACKAGE.fullmatch(word):
            raise BuildFailed(f"apt.txt: {word[:60]!r} is not the name of a package. Write one package per line, without options.")
    if not words:
        return None
    script = apt_script(words)
    return Step("apt packages", "run", fingerprint("root", script), "root", script)


def _python_step(name: str, wanted: Requirements, *, local: bool) -> Step | None:
    lines = [*wanted.lines, *wanted.local] if local else wanted.lines
    if not any(not line.startswith("--") for line in lines) and not wanted.arguments:
        return None
    script = install_script(lines, wanted.constraints, wanted.arguments)
    return Step(name, "run", "" if local else fingerprint("jovyan", script), "jovyan", script)


def _dependencies(project: dict[str, Any]) -> list[str] | None:
    """Dependencies that stand in pyproject.toml; None when only building the package tells them."""
    table = project.get("project")
    if not isinstance(table, dict) or "dependencies" in table.get("dynamic", []):
        return None
    listed = table.get("dependencies", [])
    if not isinstance(listed, list) or not all(isinstance(line, str) and "\n" not in line for line in listed):
        raise BuildFailed("dependencies in pyproject.toml must be a list of strings. Correct it and try again.")
    # A path in there is relative to the package: left to the package's own installation.
    return None if any("file:" in line for line in listed) else sorted(listed)
