"""Copies a finished image to the registry outside that other hubs pull from. Called by the line, for launches that only build.

skopeo moves the blobs, signs in and speaks TLS; the copy has the digest of the original, and counts once the registry has shown its manifest.
Several that want the same image at once wait for one copy, and whoever leaves stops nothing.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import logging
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from binder_onprem.errors import RegistryUnavailable
from binder_onprem.host import engine_files
from binder_onprem.logs import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from binder_onprem.config import Config
    from binder_onprem.host.sources import Sources
    from binder_onprem.model import ImageRef

logger = logging.getLogger(__name__)

SECONDS: Final = 900.0
"""A copy may take this long."""
WORDS: Final = 16 * 1024
"""Bytes of what skopeo complains that are looked at."""
REFUSED: Final = re.compile(r"unauthorized|authentication required|denied|forbidden|invalid username|40[13]", re.IGNORECASE)
UNTRUSTED: Final = re.compile(r"x509|certificate", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Said:
    status: int
    out: bytes
    words: str


class Publication:
    """Satisfies `interfaces.Publication`.

    Args:
        config: Its `publish` section, and where our own registry is.
        sources: The site's proxy and certificates.
    """

    def __init__(self, config: Config, sources: Sources) -> None:
        self._config = config
        self._sources = sources
        self._place = config.publish.registry or ""
        self._copies: dict[str, asyncio.Task[None]] = {}

    @property
    def place(self) -> str:
        """See `interfaces.Publication`."""
        return self._place

    async def publish(self, image: ImageRef, digest: str) -> str:
        """See `interfaces.Publication`."""
        source, repository = image.at(digest), f"{self._place}/{image.repository.rpartition('/')[2]}"
        task = self._copies.get(source)
        if task is None:
            task = self._copies[source] = asyncio.create_task(self._copied(source, repository, image.tag, digest))
            task.add_done_callback(lambda done: self._ended(source, done))
        await asyncio.shield(task)
        return f"{repository}@{digest}"

    def _ended(self, source: str, task: asyncio.Task[None]) -> None:
        self._copies.pop(source, None)
        if not task.cancelled() and task.exception():
            logger.warning("image not published", extra={"image": source})

    async def _copied(self, source: str, repository: str, tag: str, digest: str) -> None:
        with self._credentials() as directory:
            source_tls = f"--src-cert-dir={directory / 'own'}" if self._config.remote else "--src-tls-verify=false"
            copy = ("copy", "--quiet", "--preserve-digests", source_tls, f"--dest-cert-dir={directory}")
            said = await self._skopeo(directory, *copy, f"docker://{source}", f"docker://{repository}:{tag}")
            if said.status:
                raise self._error(said)
            said = await self._skopeo(directory, "inspect", "--raw", f"--cert-dir={directory}", f"docker://{repository}@{digest}")
            if said.status or f"sha256:{hashlib.sha256(said.out).hexdigest()}" != digest:
                raise RegistryUnavailable(f"The registry {self._place} did not keep the image that was copied there. Trying again may help.")

    @contextlib.contextmanager
    def _credentials(self) -> Iterator[Path]:
        """A directory that only root enters, with the accounts of both registries and the certificates; read anew, so that new ones hold at once."""
        directory = Path(tempfile.mkdtemp(prefix="publish-", dir=self._config.run))
        try:
            accounts = {self._config.registry_host: self._config.push_account}
            if self._config.publish.account_file:
                accounts[self._place.partition("/")[0]] = self._config.publish.account_file
            auths = {host: {"auth": base64.b64encode(file.read_bytes().strip()).decode()} for host, file in accounts.items()}
            (directory / "auth.json").write_text(json.dumps({"auths": auths}), encoding="ascii")
            given = self._config.publish.ca_file
            (directory / "ca.crt").write_bytes(given.read_bytes() if given else self._sources.ca_bundle)
            (directory / "own").mkdir()
            if self._config.remote and self._config.registry_ca:
                (directory / "own" / "ca.crt").write_bytes(self._config.registry_ca.read_bytes())
            yield directory
        except OSError as error:
            raise RegistryUnavailable(
                "The account or the certificates for the registry outside cannot be read. The administrator must look into publish.account_file."
            ) from error
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    async def _skopeo(self, directory: Path, verb: str, *words: str) -> _Said:
        pipe = asyncio.subprocess.PIPE
        program = ("skopeo", "--insecure-policy", verb, f"--authfile={directory / 'auth.json'}", *words)
        process = await asyncio.create_subprocess_exec(
            *program, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=dict(self._environment())
        )
        try:
            async with asyncio.timeout(SECONDS):
                out, words_ = await process.communicate()
        except TimeoutError:
            raise RegistryUnavailable(f"Copying the image to {self._place} took longer than {SECONDS:.0f} s. Try again later.") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return _Said(process.returncode or 0, out, words_[-WORDS:].decode(errors="replace"))

    def _environment(self) -> Mapping[str, str]:
        return {**engine_files.environment(self._config), **engine_files.proxied(self._sources.proxy, self._sources.no_proxy)}

    def _error(self, said: _Said) -> RegistryUnavailable:
        """What went wrong, in our words: what a remote host said goes to the log only."""
        logger.warning("copy failed", extra={"registry": self._place, "said": redact(" ".join(said.words.split()))[-500:]})
        if REFUSED.search(said.words):
            return RegistryUnavailable(f"The registry {self._place} refuses our account. The administrator must put the right one into its file.")
        if UNTRUSTED.search(said.words):
            return RegistryUnavailable(f"The certificate of the registry {self._place} is not trusted. The administrator must set publish.ca_file.")
        return RegistryUnavailable(f"The image is built, but the registry {self._place} does not take it. Try again later.", retry_after=60)
