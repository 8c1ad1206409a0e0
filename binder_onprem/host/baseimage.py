"""Makes the two images that everything starts from, and publishes the base image to our registry.

Called by `up` when podman's service and the registry run (`make`), and by the daemon, which only reads what was made (`made`). Works through
podman's command line against our own service. Never touches what repositories bring.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.error import HTTPError
from urllib.request import Request

from binder_onprem.config import ImageBase
from binder_onprem.errors import HostUnfit, RegistryUnavailable
from binder_onprem.host import imagecache, ociarchive, registryaccess
from binder_onprem.host.commands import Commands
from binder_onprem.host.recipe import Recipe, recipe
from binder_onprem.host.sources import bundled

if TYPE_CHECKING:
    from collections.abc import Callable

    from binder_onprem.config import Config
    from binder_onprem.host.sources import Sources

BASE_NAME: Final = "localhost/binder-onprem/base:latest"
"""The base image's local name; Dockerfiles say ``FROM binder-onprem/base``, which podman finds locally without asking a registry."""

SANDBOX_NAME: Final = "localhost/binder-onprem/sandbox:latest"
ROOT_NAME: Final = "localhost/binder-onprem/root:latest"
LABEL: Final = "io.binder-onprem.recipe"
MANIFEST_TYPES: Final = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
MANIFEST_BYTES: Final = 4 * 1024**2


@dataclass(frozen=True, slots=True)
class Made:
    """What was made; the contents of ``images.json``.

    Attributes:
        base: ``host:port/binder-base@sha256:…`` in our registry.
        base_id: ID of the base image in podman's storage.
        sandbox: ID of the image that repositories are prepared in.
        recipe: 64 hex digits over everything of ours that shapes images.
        shared: ``host:port/binder-sandbox@sha256:…``: the same for other machines that build; "" where there are none.
    """

    base: str
    base_id: str
    sandbox: str
    recipe: str
    shared: str = ""


def made(config: Config) -> Made:
    """Read what `make` made.

    Raises:
        HostUnfit: Nothing was made yet.
    """
    try:
        data = json.loads((config.home / "images.json").read_text(encoding="utf-8"))
        return Made(**{str(name): str(value) for name, value in data.items()})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HostUnfit("The base image has not been made yet. Run `binder-onprem up`.") from error


def make(config: Config, sources: Sources, say: Callable[[str], None]) -> Made:
    """Make what the recipe asks for and is not there yet; repeated, it changes nothing.

    Args:
        config: Says what the base image stands on.
        sources: Mirrors and certificates.
        say: Is given a line of progress at a time.

    Raises:
        HostUnfit: The distribution's packages or the Python environment cannot be installed, or podman fails; the message names the log.
        RegistryUnavailable: The registry does not take the image.
    """
    folder = imagecache.directory()
    making = _Making(config, sources, say, folder)
    for notice in making.recipe.notices:
        say(notice)
    # Another site's set-up holds the lock for minutes; who needs nothing made does not wait for it.
    if made := making.standing():
        return made
    with imagecache.locked(folder, say):
        return making.result()


@dataclass(frozen=True, slots=True)
class _Image:
    """One of the two: in the making, here, and in the registry."""

    target: str
    local: str
    repository: str
    key: str

    @property
    def tag(self) -> str:
        return self.key[:12]


class _Making:
    """One run of `make`; what reads or fills the cache needs it locked."""

    def __init__(self, config: Config, sources: Sources, say: Callable[[str], None], folder: Path) -> None:
        self.config, self.sources, self.say, self.folder = config, sources, say, folder
        config.logs.mkdir(parents=True, exist_ok=True)
        self.commands = Commands(config.logs / "images.log", sources.proxy, sources.no_proxy)
        self.site_image = self._site_image()
        self.recipe: Recipe = recipe(config, sources, self.site_image)

    def standing(self) -> Made | None:
        """What is there, if it is all that the recipe asks for."""
        base_id, sandbox = self._standing(BASE_NAME, self.recipe.session), self._standing(SANDBOX_NAME, self.recipe.sandbox)
        if not base_id or not sandbox:
            return None
        names = [self._confirmed(image, found) for image, found in ((self._session, base_id), (self._sandbox, sandbox)) if image]
        return self._kept(Made(names[0], base_id, sandbox, self.recipe.digest, *names[1:])) if all(names) else None

    def result(self) -> Made:
        base_id = self._image("session", BASE_NAME, self.recipe.session)
        with ThreadPoolExecutor(1) as beside:
            published = beside.submit(self._published, self._session, base_id)
            sandbox = self._image("sandbox", SANDBOX_NAME, self.recipe.sandbox)
            shared = self._published(self._sandbox, sandbox) if self._sandbox else ""
            return self._kept(Made(published.result(), base_id, sandbox, self.recipe.digest, shared))

    def _kept(self, made: Made) -> Made:
        _write(self.config.home / "images.json", json.dumps(asdict(made), indent=1) + "\n")
        return made

    @property
    def _session(self) -> _Image:
        return _Image("session", BASE_NAME, "binder-base", self.recipe.session)

    @property
    def _sandbox(self) -> _Image | None:
        """What machines that build elsewhere fetch."""
        return _Image("sandbox", SANDBOX_NAME, "binder-sandbox", self.recipe.sandbox) if self.config.builders else None

    def _confirmed(self, image: _Image, found: str) -> str:
        """Its name by digest in the registry; "" where that does not have it, or has another one."""
        digest = _held(self.config, image, found)
        return f"{self.config.registry_host}/{image.repository}@{digest}" if digest else ""

    def podman(self, *words: str, timeout: float = 1800) -> str:
        return self.commands.run("podman", f"--url=unix://{self.config.podman_socket}", *words, timeout=timeout)

    def _site_image(self) -> str:
        """ID of the site's own image, fetched if it is not there; "" where the base is made of the distribution's packages."""
        base = self.config.build.base
        if not isinstance(base, ImageBase):
            return ""
        if not self._inspect(base.image, "{{.Id}}"):
            self.say(f"Fetching {base.image}.")
            self.podman("pull", "--quiet", "--", base.image)
        return self._inspect(base.image, "{{.Id}}")

    def _inspect(self, name: str, form: str) -> str:
        return self.commands.output("podman", f"--url=unix://{self.config.podman_socket}", "image", "inspect", f"--format={form}", "--", name)

    def _standing(self, name: str, key: str) -> str | None:
        """ID of the local image of that name if it was made by that recipe."""
        found = self._inspect(name, f'{{{{.Id}}}} {{{{index .Labels "{LABEL}"}}}}').split()
        return found[0] if len(found) == 2 and found[1] == key else None  # noqa: PLR2004 - id and label

    def _image(self, target: str, name: str, key: str) -> str:
        if there := self._standing(name, key):
            return there
        if archive := imagecache.find(self.folder, target, key):
            self.say(f"Loading the {target} image, which was made before.")
            try:
                self.podman("load", "--quiet", f"--input={archive}")
            except HostUnfit:
                archive.unlink()
            if there := self._standing(name, key):
                return there
        with imagecache.workspace(self.folder) as work:
            self._build(work, target, name, key)
            self.podman("save", "--quiet", "--format=oci-archive", f"--output={work / 'image.tar'}", name)
            imagecache.keep(self.folder, target, key, work / "image.tar")
        if there := self._standing(name, key):
            return there
        raise HostUnfit(f"Podman built the {target} image but does not have it under its name. Look at {self.commands.log}.")

    def _build(self, work: Path, target: str, name: str, key: str) -> None:
        context, secret = work / "context", work / "secret"
        for path, data in self.recipe.files.items():
            (context / path).parent.mkdir(parents=True, exist_ok=True)
            (context / path).write_bytes(data)
        if bundle := self.config.mirrors.bundle:
            shutil.copytree(bundle / "wheels", context / "python" / "wheels")
        secret.touch(mode=0o600)
        secret.write_bytes(self.recipe.secret)
        root = self.site_image or self._root(work, context)
        arguments = {
            "ROOT": root,
            "PACKAGES": " ".join(self.recipe.packages),
            "SITE": self.recipe.site,
            "PYTHON": self.recipe.environments[target],
            "FURTHER": " ".join(self.recipe.further) if target == "sandbox" else "",
            "RECIPE": key,
        }
        self.say(f"Building the {target} image.")
        words = [f"--build-arg={option}={value}" for option, value in arguments.items()]
        # By the environment that the command has: an account in it would stand on the command line.
        words += [f"--build-arg={name}" for name in self.commands.proxies]
        options = ("--network=host", "--pull=never", f"--target={target}", f"--secret=id=index,src={secret}", f"--tag={name}")
        printed = self.podman("build", *options, *words, f"--file={context / 'Containerfile'}", str(context))
        for line in printed.splitlines():
            if line.startswith(("uv ", "jupyter", "notebook ")):
                self.say("  " + " ".join(line.split()))

    def _root(self, work: Path, context: Path) -> str:
        """A root of the distribution's packages as an image; its name."""
        archive = imagecache.find(self.folder, "root", self.recipe.root)
        if archive is None:
            self.say(f"Installing {self.recipe.suite}'s packages into a new root; this takes about half a minute.")
            self._bootstrap(work, context)
            archive = imagecache.keep(self.folder, "root", self.recipe.root, work / "root.tar")
        self.podman("import", "--quiet", str(archive), ROOT_NAME)
        return ROOT_NAME

    def _bootstrap(self, work: Path, context: Path) -> None:
        sources, site = work / "apt-sources", context / "site"
        sources.touch(mode=0o600)  # a mirror's URL may hold an account
        bundle = self.config.mirrors.bundle
        sources.write_text(bundled(bundle, self.recipe.suite) if bundle else self.recipe.apt, encoding="utf-8")
        hooks = [f'--customize-hook=mkdir -p "$1{file.parent}" && cp "{file}" "$1{file}"' for file in self.recipe.keyrings]
        self.commands.run(
            "mmdebstrap",
            "--variant=minbase",
            f"--include={','.join(self.recipe.packages)}",
            f"--dpkgopt={site / 'dpkg.cfg'}",
            f"--aptopt={site / 'apt.conf'}",
            f'--aptopt=Acquire::https::CAInfo "{site / "ca.crt"}"',
            *hooks,
            '--customize-hook=rm -rf "$1"/etc/apt/sources.list* "$1"/var/cache/apt/* "$1"/var/log/*',
            self.recipe.suite,
            str(work / "root.tar"),
            str(sources),
            timeout=1800,
        )

    def _published(self, image: _Image, found: str) -> str:
        """An image's name by digest, once the registry has confirmed that it holds this very one."""
        if name := self._confirmed(image, found):
            return name
        self.say(f"Pushing the {'base' if image.target == 'session' else image.target} image to the registry.")
        if archive := imagecache.find(self.folder, image.target, image.key):
            ociarchive.push(archive, self.config, image.repository, image.tag)
            if name := self._confirmed(image, found):
                return name
        self._push(image.local, f"{self.config.registry_host}/{image.repository}:{image.tag}")
        if name := self._confirmed(image, found):
            return name
        raise RegistryUnavailable("The registry does not confirm the base image that was pushed to it. Look at its log, then run `binder-onprem up`.")

    def _push(self, local: str, destination: str) -> None:
        with tempfile.TemporaryDirectory(prefix="binder-onprem-") as private:
            file = Path(private) / "auth.json"
            account = registryaccess.basic(self.config.push_account).removeprefix("Basic ")
            file.write_text(json.dumps({"auths": {self.config.registry_host: {"auth": account}}}), encoding="utf-8")
            self.podman("push", "--quiet", f"--tls-verify={'true' if self.config.remote else 'false'}", f"--authfile={file}", local, destination)


def _held(config: Config, image: _Image, found: str) -> str | None:
    """Digest of the tag's manifest if it is of the image `found`; None if the registry does not have it or has another one."""
    try:
        request = Request(f"{config.registry_url}/v2/{image.repository}/manifests/{image.tag}")  # noqa: S310 - of our own registry
        request.add_header("Accept", MANIFEST_TYPES)
        request.add_header("Authorization", registryaccess.basic(config.push_account))
        with registryaccess.opener(config).open(request, timeout=30) as answer:
            body: bytes = answer.read(MANIFEST_BYTES)
            manifest: dict[str, Any] = json.loads(body)
            same = manifest["config"]["digest"].removeprefix("sha256:") == found.removeprefix("sha256:")
    except HTTPError as error:
        if error.code == 404:  # noqa: PLR2004
            return None
        raise RegistryUnavailable(
            f"The registry answers {error.code} when asked for the base image. Look at its log, then run `binder-onprem up`."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RegistryUnavailable("The registry does not answer. Look at its log, then run `binder-onprem up`.") from error
    return "sha256:" + sha256(body).hexdigest() if same else None


def _write(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
