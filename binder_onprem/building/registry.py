"""The image registry on loopback: is an image there, put one there, list, forget. The only place that knows the account.

Called by the line (is it there), the builder (push) and the pruner. An error is never "absent": only the registry's own words MANIFEST_UNKNOWN,
NAME_UNKNOWN and BLOB_UNKNOWN are. A push counts once the registry has repeated the digest. Retries exist here, for calls that may be repeated.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from yarl import URL

from binder_onprem.building.answers import DENIED, DIGEST, DOWN, NONSENSE, Again, Answer, body_of, check, decoded, digest_of, location_of
from binder_onprem.building.blobs import MANIFEST
from binder_onprem.building.supply import attached
from binder_onprem.errors import BinderError, RegistryUnavailable
from binder_onprem.host import registryaccess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from binder_onprem.config import Config
    from binder_onprem.model import ImageRef

MANIFESTS: Final = f"{MANIFEST}, application/vnd.docker.distribution.manifest.v2+json"
ENVIRONMENTS: Final = "binder-env"
"""Repository of the layers that environments are made of, tagged by what went into them."""
PAGE: Final = 100
PAGES: Final = 1000
ASK_SECONDS: Final = 6.0
"""How long a question is repeated."""
PUSH_SECONDS: Final = 45.0
"""How long a push is repeated: a registry that is being restarted costs no build."""
PAUSES: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)


@dataclass(frozen=True, slots=True)
class Stored:
    """An image as the registry has it (`interfaces.StoredImage`)."""

    reference: str
    layers: tuple[tuple[str, int], ...]

    @property
    def size(self) -> int:
        """Bytes of its layers and configuration."""
        return sum(size for _, size in self.layers)


class DistributionRegistry:
    """A registry that speaks the OCI distribution protocol (satisfies `interfaces.Registry`).

    Args:
        session: Sends the account with each request.
        host: ``host:port``.
        prefix: Path below which our images lie, ``binder``.
        scheme: ``http`` on loopback, ``https`` for one on another machine.
    """

    def __init__(self, session: aiohttp.ClientSession, host: str, prefix: str, scheme: str = "http") -> None:
        self._session = session
        self._host = host
        self._own = URL(f"{scheme}://{host}")
        self._prefix = prefix.strip("/") + "/"

    async def ping(self) -> None:
        """Ask whether it answers and takes our account. Raises `RegistryUnavailable`."""
        await self._ask("GET", "")

    async def digest(self, image: ImageRef) -> str | None:
        """See `interfaces.Registry`."""
        return await self.find(self.path(image.repository), image.tag)

    def path(self, repository: str) -> str:
        """``binder/name`` of ``host:port/binder/name``; of another registry nothing is known here."""
        host, _, path = repository.partition("/")
        if host != self._host or not path:
            raise RegistryUnavailable(NONSENSE)
        return path

    async def find(self, path: str, reference: str) -> str | None:
        """Digest of the manifest with this tag or digest, or None when the registry says that there is none."""
        answer = await self._ask("HEAD", f"{path}/manifests/{reference}", headers={"Accept": MANIFESTS})
        if answer is None:
            # A HEAD has no body: only a GET tells an absent manifest from an answer of something else on that port.
            answer = await self._ask("GET", f"{path}/manifests/{reference}", headers={"Accept": MANIFESTS})
        return None if answer is None else digest_of(answer.headers)

    async def manifest(self, path: str, reference: str) -> tuple[str, dict[str, Any]] | None:
        """Digest and content of a manifest, or None when there is none; the content is checked against the digest."""
        answer = await self._manifest(path, reference)
        return None if answer is None else (digest_of(answer.headers, answer.body), answer.json())

    async def size(self, path: str, reference: str) -> int | None:
        """Bytes of a manifest, or None when there is none."""
        answer = await self._manifest(path, reference)
        return None if answer is None else len(answer.body)

    async def _manifest(self, path: str, reference: str) -> Answer | None:
        return await self._ask("GET", f"{path}/manifests/{reference}", headers={"Accept": MANIFESTS})

    async def configuration(self, path: str, digest: str) -> dict[str, Any]:
        """An image's configuration blob."""
        return decoded(await self.blob(path, digest))

    async def blob(self, path: str, digest: str) -> bytes:
        """A small blob, checked against its digest."""
        answer = await self._ask("GET", f"{path}/blobs/{digest}")
        if answer is None or f"sha256:{hashlib.sha256(answer.body).hexdigest()}" != digest:
            raise RegistryUnavailable(NONSENSE)
        return answer.body

    async def images(self) -> Sequence[Stored]:
        """See `interfaces.Registry`; environments that no image stands on any more are among them, so that they go first."""
        paths = [path async for path in self._pages("_catalog", "repositories") if path.startswith(self._prefix)]
        found = {stored.reference: stored for path in paths for stored in await self._images(path)}
        used = {layer for stored in found.values() for layer in stored.layers}
        # Its top layer is its own; all that is below it may be in any image. The configuration comes last.
        idle = [stored for stored in await self._tagged(ENVIRONMENTS) if stored.layers[-2:-1] and stored.layers[-2] not in used]
        return [*found.values(), *idle]

    async def delete(self, reference: str) -> None:
        """See `interfaces.Registry`."""
        repository, _, digest = reference.partition("@")
        if not DIGEST.fullmatch(digest):
            raise RegistryUnavailable(NONSENSE)
        path = self.path(repository)
        # The image first: one without its papers would be refused, papers without an image only go a little later.
        await self.erase(path, digest)
        await attached.forget(self, path, digest)

    async def erase(self, path: str, digest: str) -> None:
        """Forget one manifest with all its tags; absent is fine."""
        await self._ask("DELETE", f"{path}/manifests/{digest}")

    async def upload(self, path: str, content: Callable[[], AsyncIterator[bytes]], digest: Callable[[], str]) -> None:
        """Put a blob there in one pass.

        Args:
            path: ``binder/name``.
            content: Gives the bytes, from the start at each call (a push that fails is repeated).
            digest: Of the bytes just given.

        Raises:
            RegistryUnavailable: Did not work within 45 s of its first failure.
        """
        await self._repeat(lambda: self._upload(path, content, digest), PUSH_SECONDS)

    async def put_blob(self, path: str, content: bytes) -> str:
        """Put a small blob there; returns its digest. Raises as `upload`."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"

        async def whole() -> AsyncIterator[bytes]:
            yield content

        await self.upload(path, whole, lambda: digest)
        return digest

    async def mount(self, path: str, digest: str, source: str) -> bool:
        """Make a blob of another repository of this registry one of `path`'s too, without moving a byte; False if it is not there."""
        if path == source:
            return True
        answer = await self._ask("POST", f"{path}/blobs/uploads/", params={"mount": digest, "from": source}, seconds=PUSH_SECONDS)
        if answer is not None and answer.status == 201:  # noqa: PLR2004 - HTTP
            return True
        if answer is not None:
            await self._ask("DELETE", answer.headers["Location"])
        return False

    async def put_manifest(self, path: str, content: bytes, tag: str | None = None, media_type: str = MANIFEST) -> str:
        """Put a manifest there, under a tag or only under its digest; returns the digest that the registry confirms when asked again."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        url = f"{path}/manifests/{tag or digest}"
        await self._ask("PUT", url, data=content, headers={"Content-Type": media_type}, seconds=PUSH_SECONDS)
        if await self.find(path, tag or digest) != digest:
            raise RegistryUnavailable("The image registry did not keep the image that was pushed. Trying again may help.")
        return digest

    async def _images(self, path: str) -> list[Stored]:
        """A repository's images; what lies beside one counts as one itself only when that one is gone, so that it goes, too."""
        tags = [tag async for tag in self._pages(f"{path}/tags/list", "tags")]
        named = [stored for tag in tags if not attached.subject(tag) and (stored := await self._stored(path, tag))]
        here = {stored.reference.partition("@")[2] for stored in named}
        left = [tag for tag in tags if (about := attached.subject(tag)) and about not in here]
        return [*named, *[stored for tag in left if (stored := await self._stored(path, tag))]]

    async def _tagged(self, path: str) -> list[Stored]:
        found = [await self._stored(path, tag) async for tag in self._pages(f"{path}/tags/list", "tags")]
        return [stored for stored in found if stored]

    async def _stored(self, path: str, tag: str) -> Stored | None:
        found = await self.manifest(path, tag)
        if found is None:
            return None
        digest, manifest = found
        blobs = [*manifest.get("layers", ()), *([manifest["config"]] if "config" in manifest else ())]
        return Stored(f"{self._host}/{path}@{digest}", tuple((str(blob["digest"]), int(blob["size"])) for blob in blobs))

    async def _pages(self, path: str, key: str) -> AsyncIterator[str]:
        last = ""
        for _ in range(PAGES):
            answer = await self._ask("GET", path, params={"n": str(PAGE), **({"last": last} if last else {})})
            names = (answer.json().get(key) if answer else None) or []
            for name in names:
                yield str(name)
            if not names or answer is None or "Link" not in answer.headers:
                return
            last = str(names[-1])

    async def _upload(self, path: str, content: Callable[[], AsyncIterator[bytes]], digest: Callable[[], str]) -> None:
        started = await self._send("POST", f"{path}/blobs/uploads/")
        location = location_of(started)
        source = _Source(content)
        try:
            patched = await self._send("PATCH", location, data=source.chunks(), headers={"Content-Type": "application/octet-stream"})
            location = location_of(patched)
            done = await self._send("PUT", str(self._url(location).update_query(digest=digest())), data=b"")
            digest_of(done.headers)
        except BaseException as error:
            # Whatever ended it, a half upload must not stay; the registry purges what this cannot reach.
            await asyncio.shield(self._forget(location))
            if isinstance(error, Again) and source.error:
                raise source.error from None
            raise

    async def _forget(self, location: str) -> None:
        try:
            async with asyncio.timeout(2):
                await self._send("DELETE", location)
        except (Again, RegistryUnavailable, TimeoutError):
            return

    async def _ask(self, method: str, path: str, *, seconds: float = ASK_SECONDS, **options: Any) -> Answer | None:
        """A call that may be repeated; None when the registry says that what it is about does not exist."""
        answer = await self._repeat(lambda: self._send(method, path, **options), seconds)
        return answer if answer.status < 400 else None  # noqa: PLR2004 - HTTP

    async def _repeat(self, attempt: Callable[[], Any], seconds: float) -> Any:
        clock = asyncio.get_running_loop().time
        end: float | None = None
        last = DOWN
        for tried in range(10_000):
            try:
                return await attempt()
            except Again as error:
                last = error.sentence
                end = end or clock() + seconds
                if clock() > end:
                    break
                await asyncio.sleep(PAUSES[min(tried, len(PAUSES) - 1)])
        raise RegistryUnavailable(last, retry_after=30)

    def _url(self, path: str) -> URL:
        """Of a path below ``/v2/``, or of a place that the registry named, which must be its own: our account goes there."""
        if not path.startswith(("/", "http:", "https:")):
            return URL(f"{self._own}/v2/{path}", encoded=True)
        url = self._own.join(URL(path, encoded=True))
        if url.origin() != self._own.origin():
            raise RegistryUnavailable(NONSENSE)
        return url

    async def _send(self, method: str, path: str, **options: Any) -> Answer:
        url = self._url(path)
        try:
            async with self._session.request(method, url, allow_redirects=False, **options) as response:
                answer = Answer(response.status, response.headers, await body_of(response))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Again from error
        check(answer, method)
        return answer


class _Source:
    """Keeps the error of what is being sent apart from the connection's: the client gives both the same class."""

    def __init__(self, content: Callable[[], AsyncIterator[bytes]]) -> None:
        self._content = content
        self.error: BinderError | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._content():
                yield chunk
        except BinderError as error:
            self.error = error
            raise


def authorization(account: str) -> dict[str, str]:
    """The header that says who we are, of ``user:password``."""
    return {"Authorization": "Basic " + base64.b64encode(account.encode()).decode()}


@asynccontextmanager
async def connected(config: Config) -> AsyncIterator[DistributionRegistry]:
    """The registry of this site, with the account that pushes.

    Raises:
        RegistryUnavailable: The file with the account, or with the certificates, cannot be read.
    """
    try:
        headers = authorization(config.push_account.read_text(encoding="utf-8").strip())
    except OSError as error:
        raise RegistryUnavailable(DENIED) from error
    prefix = config.image_prefix.partition("/")[2]
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=60)
    connector = aiohttp.TCPConnector(ssl=registryaccess.trust(config) if config.remote else True)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector, trust_env=False) as session:
        yield DistributionRegistry(session, config.registry_host, prefix, URL(config.registry_url).scheme)
