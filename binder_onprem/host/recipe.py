"""The recipe of the two images: every file that goes into them, and digests that change exactly when an image could.

Pure but for reading this package's own files and the keyrings that the apt sources name. Called by `baseimage`; never talks to podman.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from binder_onprem.config import DistributionBase
from binder_onprem.config.providers import MercurialProvider
from binder_onprem.host.sources import suite
from binder_onprem.model import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from binder_onprem.config import Config
    from binder_onprem.host.sources import Sources

PACKAGES: Final = (
    "ca-certificates", "curl", "g++", "git", "git-lfs", "less", "locales", "make", "openssh-client", "pkg-config", "procps", "python3", "python3-dev",
    "python3-venv", "tini",
)  # fmt: skip
"""What both images have of the distribution, beyond its smallest set: the compiler, too, because many packages come as C and C++ sources."""

SHAPING: Final = ("content.py", "plan.py", "building/contents.py", "building/layers.py", "building/layerbuild.py", "building/rendering.py")
"""Modules of ours that, with all of ``sandbox/``, decide what an image becomes. The sandbox gets them mounted, so no image holds them."""

SESSION_PYTHON: Final = ("python/requirements.lock", "python/further.txt", "python/jupyter_server_config.json", "python/page_config.json")

CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"

R_SITE: Final = b"""\
# R reads this file instead of its own one.
local({
    own <- file.path(R.home("etc"), "Rprofile.site")
    if (file.exists(own)) sys.source(own, envir = baseenv())
})
"""

_PACKAGE: Final = Path(__file__).parents[1]
_ACCOUNT: Final = re.compile(r"(?<=://)[^/\s@]+@")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the images are made.

    Attributes:
        suite: The distribution's release, for mmdebstrap.
        packages: Of the distribution.
        further: Of the distribution, for the sandbox alone.
        apt: Sources for the making, accounts included; the images get the ones in `files`.
        keyrings: Files of the host that `apt` names as ``Signed-By``.
        files: The build context: path → contents.
        secret: Shell assignments that only the build sees: the index with its account.
        root, session, sandbox: Digests over what shapes that image, 64 hex digits.
        digest: Over all of it and our code that shapes images; part of every image's name.
        notices: Sentences for whoever sets this up.
    """

    suite: str
    packages: tuple[str, ...]
    further: tuple[str, ...]
    apt: str
    keyrings: tuple[Path, ...]
    files: Mapping[str, bytes]
    secret: bytes
    root: str
    session: str
    sandbox: str
    digest: str
    notices: tuple[str, ...]

    @property
    def site(self) -> str:
        """Digest of the stage that both images stand on, for podman's cache."""
        return _digest(self.files, "site/", start=self.root)

    @property
    def environments(self) -> dict[str, str]:
        """Digest of each image's Python environment, for podman's cache."""
        installer = ("python/install.sh", "python/installer.lock")
        return {"session": _digest(self.files, *SESSION_PYTHON, *installer), "sandbox": _digest(self.files, "python/sandbox.lock", *installer)}


def recipe(config: Config, sources: Sources, image: str = "") -> Recipe:
    """Work out the recipe.

    Args:
        config: Names the distribution's release and further packages, or the site's own image.
        sources: Mirrors and certificates.
        image: ID of the site's own image, where the configuration names one.
    """
    base = config.build.base
    further = base if isinstance(base, DistributionBase) else DistributionBase()
    packages = tuple(sorted({*PACKAGES, *further.packages}))
    apt, kept_out = ("", False) if image else without_account(sources.apt)
    files = {**_recipe_files(), **_site_files(sources, apt)}
    files["python/further.txt"] = "".join(f"{name}\n" for name in further.python_packages).encode()
    release = "" if image else suite(config)
    root = fingerprint(image, release, *packages, sources.apt, _hash(sources.ca_bundle), _digest(files, "site/apt.conf", "site/dpkg.cfg"))
    site = _digest(files, "Containerfile", "site/", "python/install.sh", "python/installer.lock", start=root)
    session = _digest(files, *SESSION_PYTHON, start=fingerprint("session", site, sources.pypi or ""))
    # Mercurial has had holes of git's kind: it is there only where it is asked for.
    fetching = ("mercurial",) if any(isinstance(part, MercurialProvider) for part in config.providers) else ()
    sandbox = _digest(files, "python/sandbox.lock", start=fingerprint("sandbox", site, sources.pypi or "", *fetching))
    shaping = shape(config)
    return Recipe(
        suite=release,
        packages=packages,
        further=fetching,
        apt=sources.apt,
        keyrings=tuple(_keyrings(apt)),
        files=files,
        secret=_secret(sources),
        root=root,
        session=session,
        sandbox=sandbox,
        digest=fingerprint(session, sandbox, *shaping),
        notices=tuple(_notices(sources, apt_account=kept_out)),
    )


def without_account(text: str) -> tuple[str, bool]:
    """The text with ``user:password@`` taken out of its URLs, and whether there was one."""
    clean, count = _ACCOUNT.subn("", text)
    return clean, bool(count)


def shaping_files() -> tuple[Path, ...]:
    """Our code that decides what an image becomes."""
    return (*sorted((_PACKAGE / "sandbox").glob("*.py")), _PACKAGE / "sandbox" / "pypi.toml", *(_PACKAGE / name for name in SHAPING))


def shape(config: Config) -> tuple[str, ...]:
    """What decides beside the images that all stands on: our code, what a site says about conda. Machines that build alike agree in it."""
    return (*(_hash(file.read_bytes()) for file in shaping_files()), *_conda(config))


def _conda(config: Config) -> tuple[str, ...]:
    """What a site says about environment.yml, where it says something: another image may come of it."""
    said = config.conda
    return (repr(sorted(said.names.items())),) if said.from_pypi else ()


def _recipe_files() -> dict[str, bytes]:
    folder = resources.files("binder_onprem.host") / "base"
    files = {"Containerfile": (folder / "Containerfile").read_bytes()}
    for part in ("site", "python"):
        files |= {f"{part}/{item.name}": item.read_bytes() for item in (folder / part).iterdir() if item.is_file()}
    locks = ("installer.lock", "requirements.lock", "sandbox.lock")
    return files | {f"python/{name}": (folder / name).read_bytes() for name in locks}


def _site_files(sources: Sources, apt: str) -> dict[str, bytes]:
    pypi = without_account(sources.pypi)[0] if sources.pypi else ""
    npm, conda, cran = (without_account(url or "")[0] for url in (sources.npm, sources.conda, sources.cran))
    pip = f"[global]\nindex-url = {pypi}\n" if pypi else ""
    if pypi.startswith("http://"):
        pip += f"trusted-host = {urlsplit(pypi).hostname}\n"
    deb822 = re.search(r"^Types:", apt, re.MULTILINE)
    return {
        "site/ca.crt": sources.ca_bundle,
        "site/sources": apt.encode(),
        "site/sources.name": b"sources.list.d/site.sources" if deb822 else b"sources.list",
        "site/pip.conf": pip.encode(),
        "site/uv.toml": f'[[index]]\nurl = "{pypi}"\ndefault = true\n'.encode() if pypi else b"",
        "site/npmrc": f"registry={npm}\n".encode() if npm else b"",
        "site/condarc": _condarc(conda).encode(),
        "site/Rprofile.site": R_SITE + (f'options(repos = c(CRAN = "{cran}"))\n'.encode() if cran else b""),
    }


def _condarc(conda: str) -> str:
    """Conda's and mamba's system-wide settings; `conda` is the mirror without an account, or ""."""
    channels = f"channel_alias: {conda}\ndefault_channels:\n  - {conda.rstrip('/')}/conda-forge\n" if conda else ""
    return f"ssl_verify: {CERTIFICATES}\n{channels}"


def _keyrings(apt: str) -> Iterator[Path]:
    for match in re.finditer(r"signed-by\s*[:=]\s*(/[^\s\],]+)", apt, re.IGNORECASE):
        if (file := Path(match[1])).is_file():
            yield file


def _secret(sources: Sources) -> bytes:
    if not sources.pypi:
        return b"\n"
    url = shlex.quote(sources.pypi)
    lines = [f"PIP_INDEX_URL={url}", f"UV_DEFAULT_INDEX={url}"]
    if sources.pypi.startswith("http://"):
        lines.append(f"PIP_TRUSTED_HOST={shlex.quote(urlsplit(sources.pypi).hostname or '')}")
    return ("\n".join(lines) + "\n").encode()


def _notices(sources: Sources, *, apt_account: bool) -> Iterator[str]:
    urls = {"pypi": sources.pypi, "npm": sources.npm, "conda": sources.conda, "cran": sources.cran}
    named = [name for name, url in urls.items() if url and without_account(url)[1]] + ["apt"] * apt_account
    if named:
        yield (
            f"The mirror URL of {', '.join(named)} holds an account. Images get the URL without it, because everyone who opens a session can "
            "read what is in its image; let the mirror serve containers without an account."
        )


def _digest(files: Mapping[str, bytes], *names: str, start: str = "") -> str:
    chosen = sorted(path for path in files if any(path == name or (name.endswith("/") and path.startswith(name)) for name in names))
    return fingerprint(start, *(part for path in chosen for part in (path, _hash(files[path]))))


def _hash(data: bytes) -> str:
    return sha256(data).hexdigest()
