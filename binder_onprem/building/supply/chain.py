"""From an image that was just made to one that may be used: list what is in it, have it looked at, sign it. And before a launch: is it one of ours?

The builder calls `attest` before the image gets its name, so nobody launches what was not looked at. Without `verify` and `scan` nothing of this can
fail a build: a list that could not be made is missing, and `images show` says so.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from binder_onprem.building.supply import attached, bill, signing
from binder_onprem.building.supply.attached import Attached
from binder_onprem.building.supply.scan import scan
from binder_onprem.errors import BinderError, BuildFailed, EngineUnavailable, RegistryUnavailable, Untrusted
from binder_onprem.events import Phase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from binder_onprem.building.registry import DistributionRegistry
    from binder_onprem.building.supply.bill import Part
    from binder_onprem.building.supply.installed import Installed
    from binder_onprem.building.supply.keys import Keys
    from binder_onprem.config import Config
    from binder_onprem.host.baseimage import Made
    from binder_onprem.interfaces import BuildLog
    from binder_onprem.model import BuildRecord
    from binder_onprem.plan import Plan

logger = logging.getLogger(__name__)

REMEMBERED: Final = 1000
"""Images whose signature was good: what is asked of them while the registry is away."""
UNSIGNED: Final = "This image has no signature of this site, and only signed images are started here. Tell the administrator."
FORGED: Final = "The signature of this image is not this site's, or is of another image, so it is not started. Tell the administrator."


class Chain:
    """The supply chain of a site's images (satisfies `interfaces.Supply`).

    Args:
        config: What the site wants.
        registry: Keeps what is known of an image beside it.
        installed: Reads what is in it.
        keys: Sign and verify.
        made: The base image and its recipe.
    """

    def __init__(self, config: Config, registry: DistributionRegistry, installed: Installed, keys: Keys, made: Made) -> None:
        self._wanted = config.supply
        self._registry = registry
        self._installed = installed
        self._keys = keys
        self._made = made
        self._good: dict[str, None] = {}

    async def attest(self, build: BuildRecord, plan: Plan, digest: str, log: BuildLog) -> None:
        """List, scan, sign an image that is in the registry and on this machine.

        Args:
            build: From what it was made.
            plan: How.
            digest: Of its manifest.
            log: Gets a line of each step.

        Raises:
            BuildFailed: The site's scan refuses it, or could not be asked.
            BinderError: With `verify` or `scan`: what went wrong; without, nothing is raised.
        """
        await self._forgiving(build, log, self._attested(build, plan.buildpack, digest, log))

    @property
    def lists(self) -> bool:
        """Whether what is installed in an image is listed."""
        return self._wanted.sbom or bool(self._wanted.scan)

    async def certify(self, build: BuildRecord, buildpack: str, digest: str, found: Sequence[Part] | None, log: BuildLog) -> None:
        """The same of an image that was built, and listed, on another machine. Raises as `attest`.

        Args:
            build: From what it was made.
            buildpack: How.
            digest: Of its manifest.
            found: What is installed in it; None: that could not be listed there.
            log: Gets a line of each step.
        """
        await self._forgiving(build, log, self._certified(build, buildpack, digest, found, log))

    async def _forgiving(self, build: BuildRecord, log: BuildLog, work: Awaitable[None]) -> None:
        try:
            await work
        except BuildFailed:
            raise
        except BinderError as error:
            if self._wanted.verify or self._wanted.scan:
                raise
            logger.warning("image without its papers", extra={"build": build.id, "error": error.code})
            await log.write(Phase.BUILDING, "What is in the image could not be listed or signed; it is used all the same.")

    async def _attested(self, build: BuildRecord, buildpack: str, digest: str, log: BuildLog) -> None:
        found = await self._installed.read(build.id, build.image.at(digest)) if self.lists else ()
        await self._certified(build, buildpack, digest, found, log)

    async def _certified(self, build: BuildRecord, buildpack: str, digest: str, found: Sequence[Part] | None, log: BuildLog) -> None:
        path, said = self._registry.path(build.image.repository), {}
        if self.lists:
            if found is None:
                raise EngineUnavailable("What is installed in the image could not be listed.")
            document = await asyncio.to_thread(bill.document, build, digest, self._facts(buildpack), found)
            said["sbom"] = await attached.put(self._registry, path, digest, "sbom", Attached(document))
            await log.write(Phase.BUILDING, f"Listed what is installed: {len(found)} packages.")
            await self._scanned(build, digest, document, log)
        if self._wanted.sign:
            signature = await asyncio.to_thread(signing.signed, self._keys, build.image.repository, digest, said)
            await attached.put(self._registry, path, digest, "sig", signature)
            await log.write(Phase.BUILDING, "Signed the image with this site's key.")

    def _facts(self, buildpack: str) -> dict[str, str]:
        return {"recipe": self._made.recipe, "base": self._made.base, "buildpack": buildpack}

    async def _scanned(self, build: BuildRecord, digest: str, document: bytes, log: BuildLog) -> None:
        if not self._wanted.scan:
            return
        await log.write(Phase.BUILDING, "Having the image looked at …")
        done = await scan(self._wanted.scan, build.image.at(digest), document, self._wanted.scan_timeout)
        if done.exit is None:
            logger.error("scan", extra={"build": build.id, "reason": done.sentence})
            raise BuildFailed("The site's scan of the image did not work, so it is not used. Tell the administrator; the service's log says why.")
        if not done.accepted:
            raise BuildFailed(f"The site's scan refuses the image: {done.sentence or f'exit status {done.exit}'}")
        await attached.put(self._registry, self._registry.path(build.image.repository), digest, "scan", Attached(json.dumps(asdict(done)).encode()))
        await log.write(Phase.BUILDING, f"Accepted{': ' + done.sentence if done.sentence else '.'}")

    async def verify(self, reference: str) -> None:
        """Let a launch go on only with an image that is signed, where the site wants that.

        Args:
            reference: ``host:port/prefix/name@sha256:…``.

        Raises:
            Untrusted: No signature, or none of this site's.
            RegistryUnavailable: It cannot be known now, and was not known before.
        """
        if not self._wanted.verify:
            return
        repository, _, digest = reference.partition("@")
        try:
            found = await attached.get(self._registry, self._registry.path(repository), digest, "sig")
        except RegistryUnavailable:
            if reference in self._good:
                return
            raise
        good = await asyncio.to_thread(signing.statement, self._keys, digest, found) is not None
        self._good.pop(reference, None)
        if not good:
            logger.error("image not trusted", extra={"image": reference, "signatures": len(found)})
            raise Untrusted(FORGED if found else UNSIGNED)
        self._good[reference] = None
        if len(self._good) > REMEMBERED:
            del self._good[next(iter(self._good))]

    async def sign(self, reference: str) -> None:
        """Sign an image that is there, at the administrator's word. Raises `RegistryUnavailable`, `HostUnfit`."""
        repository, _, digest = reference.partition("@")
        path = self._registry.path(repository)
        documents = await attached.get(self._registry, path, digest, "sbom")
        said = {"sbom": bill.digest(documents[0].content)} if documents else {}
        await attached.put(self._registry, path, digest, "sig", await asyncio.to_thread(signing.signed, self._keys, repository, digest, said))

    async def papers(self, reference: str) -> dict[str, Any]:
        """What is known of an image, as JSON: ``sbom`` (summary or None), ``signature`` (good, bad, none), ``scan``. Raises `RegistryUnavailable`."""
        repository, _, digest = reference.partition("@")
        path = self._registry.path(repository)
        documents, signatures, scans = [await attached.get(self._registry, path, digest, kind) for kind in ("sbom", "sig", "scan")]
        said = await asyncio.to_thread(signing.statement, self._keys, digest, signatures)
        own = {"digest": bill.digest(documents[0].content), **bill.summary(documents[0].content)} if documents else None
        if own:
            # What the signature says of the list tells whether it is still the one that was made.
            own["signed"] = said is not None and said.get("sbom") == own["digest"]
        return {
            "reference": reference,
            "sbom": own,
            "signature": "good" if said is not None else "bad" if signatures else "none",
            "scan": _json(scans[0].content) if scans else None,
        }

    async def sbom(self, reference: str) -> bytes | None:
        """The document itself, None where there is none. Raises `RegistryUnavailable`."""
        repository, _, digest = reference.partition("@")
        documents = await attached.get(self._registry, self._registry.path(repository), digest, "sbom")
        return documents[0].content if documents else None


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
