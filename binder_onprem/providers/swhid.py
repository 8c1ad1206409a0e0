"""Software Heritage: ``swhid/swh:1:dir:<id>`` or ``swhid/swh:1:rev:<id>``, by the archive's API; the vault cooks what is fetched."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, Field

from binder_onprem.content import Content
from binder_onprem.errors import InvalidSpec
from binder_onprem.model import RepoSpec, ResolvedRepo, slug
from binder_onprem.providers import display
from binder_onprem.providers.links import checked, decoded, shown
from binder_onprem.providers.records import file
from binder_onprem.providers.remembered import Remembered

if TYPE_CHECKING:
    from binder_onprem.config.archives import SwhidProvider
    from binder_onprem.providers.reader import Reader

CORE: Final = re.compile(r"swh:1:(?P<kind>dir|rev):(?P<id>[0-9a-f]{40})")
MISSING: Final = "Software Heritage does not have this directory or revision. Check the identifier."


class _Revision(BaseModel):
    directory: str = Field(pattern=r"^[0-9a-f]{40}$")


class _Known(BaseModel):
    object_id: Any = None


class Swhid:
    """The provider.

    Args:
        config: Its part of the configuration.
        reader: Reads answers.
        token: For the API, or "".
    """

    name = "SWHID"

    def __init__(self, config: SwhidProvider, reader: Reader, token: str = "") -> None:
        self.prefix = config.prefix
        self.display_config = display.swhid(config)
        self._url = config.url
        self._wait = config.wait
        self._api = Remembered(reader, "Software Heritage", {"Authorization": f"Bearer {token}"} if token else None)

    def parse(self, path: str) -> RepoSpec:
        """Pure. Raises InvalidSpec. Qualifiers (``;origin=…``) say where something was found, not what it is."""
        raw = checked(path)
        core = decoded(raw).removeprefix(f"{self._url}/").partition(";")[0].rstrip("/")
        if not CORE.fullmatch(core):
            raise InvalidSpec(
                f'"{shown(core)}" is not the identifier of a directory or revision: it must be swh:1:dir: or swh:1:rev: and 40 digits from 0 to f.'
            )
        return RepoSpec(self.prefix, raw, f"{self._url}/{core}", "", slug(f"swh-{core[6:20]}"))

    async def resolve(self, spec: RepoSpec) -> ResolvedRepo:
        """See `interfaces.Provider`. A revision is the directory that it recorded."""
        core = spec.url.removeprefix(f"{self._url}/")
        directory = core[10:]
        if core.startswith("swh:1:rev:"):
            directory = (await self._api.read(_Revision, f"{self._url}/api/1/revision/{directory}/", MISSING)).directory
        else:
            await self._api.read(_Known, f"{self._url}/api/1/resolve/{core}/", MISSING)
        cooking = file(f"{self._url}/api/1/vault/flat/swh:1:dir:{directory}/", "directory.tar.gz")
        plan = Content("vault", (cooking,), unpack=True, wait=self._wait)
        return ResolvedRepo(spec, directory, core, spec.url, content=plan)
