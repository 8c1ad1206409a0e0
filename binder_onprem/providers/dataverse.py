"""Installations of Dataverse: ``dataverse/<DOI>``, by their native API. Only the configured ones are ever asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from pydantic import BaseModel, Field

from binder_onprem.errors import RefNotFound
from binder_onprem.model import RepoSpec, ResolvedRepo, slug
from binder_onprem.providers import display, doi
from binder_onprem.providers.links import checked, decoded
from binder_onprem.providers.records import content, file, version
from binder_onprem.providers.remembered import Remembered

if TYPE_CHECKING:
    from binder_onprem.config.archives import DataverseProvider
    from binder_onprem.content import File
    from binder_onprem.providers.reader import Reader

MISSING: Final = "No dataset has this DOI in the installations of Dataverse that this site knows, or it is not public. Check the DOI."
NO_FILES: Final = "The dataset has no files that everybody may fetch."
RESTRICTED: Final = "The dataset has restricted files, which are left out."


class _Checksum(BaseModel):
    type: str = ""
    value: str = ""


class _DataFile(BaseModel):
    id: int
    filesize: int | None = None
    md5: str | None = None
    checksum: _Checksum | None = None
    original_name: str | None = Field(default=None, alias="originalFileName")


class _File(BaseModel):
    label: str
    restricted: bool = False
    directory: str = Field(default="", alias="directoryLabel")
    data: _DataFile = Field(alias="dataFile")


class _Version(BaseModel):
    major: int = Field(alias="versionNumber")
    minor: int = Field(alias="versionMinorNumber")
    files: list[_File] = Field(default_factory=list)


class _Dataset(BaseModel):
    id: int
    identifier: str
    authority: str
    page: str = Field(default="", alias="persistentUrl")
    latest: _Version = Field(alias="latestVersion")


class _OfDataset(BaseModel):
    data: _Dataset


class _Owner(BaseModel):
    dataset: str = Field(alias="datasetPersistentId")


class _DatasetVersion(BaseModel):
    version: _Owner = Field(alias="datasetVersion")


class _OfFile(BaseModel):
    data: _DatasetVersion


class Dataverse:
    """The provider.

    Args:
        config: Its part of the configuration.
        reader: Reads answers.
    """

    name = "Dataverse"

    def __init__(self, config: DataverseProvider, reader: Reader) -> None:
        self.prefix = config.prefix
        self.display_config = display.dataverse(config)
        self._urls = config.urls
        self._api = Remembered(reader, "Dataverse")
        self._resolver = doi.Resolver(self._api, config.doi)

    def parse(self, path: str) -> RepoSpec:
        """Pure. Raises InvalidSpec."""
        raw = checked(path)
        found = doi.named(decoded(raw), "10.7910/DVN/TJCLKP")
        return RepoSpec(self.prefix, raw, self._resolver.page(found), "", slug(f"dataverse-{found.partition('/')[2]}"))

    async def resolve(self, spec: RepoSpec) -> ResolvedRepo:
        """See `interfaces.Provider`. The DOI of a file means its dataset."""
        found = spec.url.removeprefix(self._resolver.page(""))
        for base in await self._where(found):
            try:
                return self._resolved(spec, base, await self._dataset(base, found))
            except RefNotFound as error:
                if error.message != MISSING:
                    raise
        raise RefNotFound(MISSING)

    async def _where(self, found: str) -> tuple[str, ...]:
        """The installations to ask; where there is one, nobody needs to be asked which."""
        if len(self._urls) == 1 or not self._resolver.asks:
            return self._urls
        url = await self._resolver.where(found)
        base = next((base for base in self._urls if doi.below(url, base) is not None), None)
        if base is None:
            raise doi.elsewhere(found, url, self.name)
        return (base,)

    async def _dataset(self, base: str, found: str) -> _Dataset:
        try:
            return (await self._api.read(_OfDataset, f"{base}/api/datasets/:persistentId/?persistentId=doi:{quote(found)}", MISSING)).data
        except RefNotFound:
            url = f"{base}/api/files/:persistentId/?persistentId=doi:{quote(found)}&returnDatasetVersion=true"
            owner = (await self._api.read(_OfFile, url, MISSING)).data.version.dataset
            return (await self._api.read(_OfDataset, f"{base}/api/datasets/:persistentId/?persistentId={quote(owner, safe='/:')}", MISSING)).data

    def _resolved(self, spec: RepoSpec, base: str, found: _Dataset) -> ResolvedRepo:
        latest = found.latest
        identity = version(f"{found.id}.v{latest.major}.{latest.minor}")
        free = [one for one in latest.files if not one.restricted]
        plan = content((_planned(base, one) for one in free), unpack=False, empty=NO_FILES)
        path = f"{quote(found.authority)}/{quote(found.identifier)}"
        notice = RESTRICTED if len(free) < len(latest.files) else None
        return ResolvedRepo(spec, identity, path, found.page[:500] or self._resolver.page(path), notice, plan)


def _planned(base: str, one: _File) -> File:
    """Tables as they were uploaded: what Dataverse makes of them is tab-separated, and the size and checksum it names may be of either."""
    data, checksum = one.data, one.data.checksum
    name = data.original_name or one.label
    said = f"{checksum.type.replace('-', '')}:{checksum.value}" if checksum else f"md5:{data.md5 or ''}"
    path = f"{one.directory}/{name}" if one.directory else name
    url = f"{base}/api/access/datafile/{data.id}?format=original"
    return file(url, path) if data.original_name else file(url, path, data.filesize, said)
