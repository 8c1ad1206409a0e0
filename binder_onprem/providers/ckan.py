"""CKAN: ``ckan/<escaped URL of a dataset>``, by the site's action API, version 3."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, quote, unquote, urlsplit

from pydantic import BaseModel, Field

from binder_onprem.egress.hostnames import canonical
from binder_onprem.errors import AddressRefused, InvalidSpec
from binder_onprem.model import RepoSpec, ResolvedRepo, fingerprint, slug
from binder_onprem.providers import display, doi
from binder_onprem.providers.links import checked, decoded, escaped, shown
from binder_onprem.providers.records import content, file, seconds, version
from binder_onprem.providers.remembered import Remembered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binder_onprem.config.archives import CkanProvider
    from binder_onprem.content import File
    from binder_onprem.providers.reader import Reader

NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,199}")
PATH: Final = re.compile(r"(?P<before>(/[A-Za-z0-9_.~-]+)*)/dataset/(?P<name>[^/]+)(/.*)?")
ACTIVITY: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
FORM: Final = "<escaped URL of a dataset>"
MISSING: Final = "The dataset does not exist, or is not public, or the site is not a CKAN. Check the link."
NO_FILES: Final = "The dataset has no files that everybody may fetch."


class _Resource(BaseModel):
    id: str
    url: str | None = None


class _Package(BaseModel):
    modified: str = Field(alias="metadata_modified")
    resources: list[_Resource] = Field(default_factory=list)


class _Answer(BaseModel):
    result: _Package


class Ckan:
    """The provider.

    Args:
        config: Its part of the configuration.
        reader: Reads answers.
    """

    name = "CKAN"

    def __init__(self, config: CkanProvider, reader: Reader) -> None:
        self.prefix = config.prefix
        self.display_config = display.ckan(config)
        self._urls = config.urls
        self._api = Remembered(reader, "CKAN")

    def parse(self, path: str) -> RepoSpec:
        """Pure. Raises InvalidSpec."""
        raw = checked(path)
        text = decoded(raw)
        base, name, activity = _dataset(text)
        ref = f"?activity_id={activity}" if activity else ""
        return RepoSpec(self.prefix, raw, f"{base}/dataset/{name}{ref}", "", slug(f"ckan-{name}"))

    async def resolve(self, spec: RepoSpec) -> ResolvedRepo:
        """See `interfaces.Provider`."""
        base, name, activity = _dataset(spec.url)
        if self._urls and all(doi.below(spec.url, url) is None for url in self._urls):
            raise AddressRefused("This site launches datasets of the CKAN sites only that its administrator has named (urls).")
        call = f"activity_data_show?id={quote(activity)}&object_type=package" if activity else f"package_show?id={quote(name)}"
        package = (await self._api.read(_Answer, f"{base}/api/3/action/{call}", MISSING)).result
        of = f".{fingerprint(activity)[:8]}" if activity else ""
        identity = version(f"{name[:70]}.v{seconds(package.modified)}{of}")
        plan = content(_files(package.resources), unpack=False, empty=NO_FILES)
        return ResolvedRepo(spec, identity, escaped(spec.url), spec.url, content=plan)


def _dataset(url: str) -> tuple[str, str, str]:
    """Site, dataset and activity ("" for the state of now) of a URL, written one way. Raises InvalidSpec."""
    try:
        parts = urlsplit(url)
        host, port = canonical(parts.hostname or ""), parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    match = PATH.fullmatch(parts.path)
    name = unquote(match["name"]) if match else ""
    if not host or parts.scheme not in ("http", "https") or parts.username is not None or port == 0 or match is None or not NAME.fullmatch(name):
        raise InvalidSpec(f'"{shown(url)}" is not the URL of a dataset: it must be like https://demo.ckan.org/dataset/sample-dataset-1.')
    history = re.search(r"/history/([^/]+)", match[4] or "")
    activity = history[1] if history else next(iter(parse_qs(parts.query, max_num_fields=20).get("activity_id", [])), "")
    if ".." in parts.path or (activity and not ACTIVITY.fullmatch(activity)):
        raise InvalidSpec(f'"{shown(url)}" does not name a version of a dataset.')
    netloc = (f"[{host}]" if ":" in host else host) + (f":{port}" if port and port != {"http": 80, "https": 443}[parts.scheme] else "")
    return f"{parts.scheme}://{netloc}{match['before']}", name, activity


def _files(resources: list[_Resource]) -> Iterator[File]:
    """By their URLs' last parts. What CKAN says of size and hash is what somebody once wrote there, so nothing is held against it."""
    taken: set[str] = set()
    for one in resources:
        if not one.url:
            continue
        last = unquote(urlsplit(one.url).path.rpartition("/")[2]) or one.id
        name = f"{one.id}-{last}" if last in taken else last
        taken.add(name)
        yield file(one.url, name)
