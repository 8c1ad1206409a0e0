"""HydroShare: ``hydroshare/<id or URL of a resource>``. A resource has one state, that of now; its bag is what is fetched."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, Field

from binder_onprem.content import Content
from binder_onprem.errors import InvalidSpec, ProviderUnavailable
from binder_onprem.model import RepoSpec, ResolvedRepo, slug
from binder_onprem.providers import display
from binder_onprem.providers.links import checked, decoded, shown
from binder_onprem.providers.records import file, seconds, version
from binder_onprem.providers.remembered import NONSENSE, Remembered

if TYPE_CHECKING:
    from binder_onprem.config.archives import HydroshareProvider
    from binder_onprem.providers.reader import Reader

ID: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
MISSING: Final = "The resource does not exist, or is not public. Check the link."


class _Date(BaseModel):
    type: str = ""
    start: str = Field(default="", alias="start_date")


class _Elements(BaseModel):
    dates: list[_Date]


class Hydroshare:
    """The provider.

    Args:
        config: Its part of the configuration.
        reader: Reads answers.
    """

    name = "Hydroshare"

    def __init__(self, config: HydroshareProvider, reader: Reader) -> None:
        self.prefix = config.prefix
        self.display_config = display.hydroshare(config)
        self._url = config.url
        self._wait = config.wait
        self._api = Remembered(reader, "HydroShare")

    def parse(self, path: str) -> RepoSpec:
        """Pure. Raises InvalidSpec."""
        raw = checked(path)
        text = decoded(raw)
        found = ID.search(text)
        if found is None:
            raise InvalidSpec(f'"{shown(text)}" does not name a resource of HydroShare: its id has 32 digits from 0 to f.')
        return RepoSpec(self.prefix, raw, f"{self._url}/resource/{found[0]}", "", slug(f"hydroshare-{found[0]}"))

    async def resolve(self, spec: RepoSpec) -> ResolvedRepo:
        """See `interfaces.Provider`."""
        resource = spec.url.rpartition("/")[2]
        elements = await self._api.read(_Elements, f"{self._url}/hsapi/resource/{resource}/scimeta/elements", MISSING)
        modified = next((date.start for date in elements.dates if date.type == "modified"), None)
        if modified is None:
            raise ProviderUnavailable(NONSENSE)
        bag = file(f"{self._url}/django_s3/download/bags/{resource}.zip", f"{resource}.zip")
        plan = Content("bag", (bag,), unpack=True, inside=f"{resource}/data/contents", wait=self._wait)
        return ResolvedRepo(spec, version(f"{resource}.v{seconds(modified)}"), resource, spec.url, content=plan)
