"""Repositories of research data, whose records are files and not git."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Literal

from pydantic import Field, PositiveFloat

from binder_onprem.config import kinds  # noqa: TC001 - pydantic reads it
from binder_onprem.config.frozen import Frozen

DOI = "https://doi.org"


class ZenodoProvider(Frozen):
    """Zenodo, or any InvenioRDM."""

    kind: Literal["zenodo"] = "zenodo"
    prefix: kinds.ProviderPrefix = "zenodo"
    url: kinds.HostUrl = "https://zenodo.org"
    api: kinds.HostUrl | None = Field(default=None, description="default: URL + /api")
    doi: kinds.HostUrl | None = Field(default=DOI, description="who resolves a DOI that does not name the record itself; null: nobody")
    doi_prefixes: tuple[str, ...] = Field(default=("10.5281/zenodo.",), description="what stands before the record's id in DOIs of this host")
    token_file: Path | None = None


class FigshareProvider(Frozen):
    """Figshare."""

    kind: Literal["figshare"] = "figshare"
    prefix: kinds.ProviderPrefix = "figshare"
    url: kinds.HostUrl = "https://figshare.com"
    api: kinds.HostUrl = "https://api.figshare.com/v2"
    doi: kinds.HostUrl | None = Field(default=DOI, description="as for zenodo; DOIs with m9.figshare.<id> name the article themselves")
    token_file: Path | None = None


class DataverseProvider(Frozen):
    """Installations of Dataverse."""

    kind: Literal["dataverse"] = "dataverse"
    prefix: kinds.ProviderPrefix = "dataverse"
    urls: tuple[kinds.HostUrl, ...] = Field(
        default=("https://dataverse.harvard.edu",), min_length=1, description="the installations; no other is ever asked"
    )
    doi: kinds.HostUrl | None = Field(default=DOI, description="who says in which of several installations a DOI is; null: each is asked in turn")


class HydroshareProvider(Frozen):
    """HydroShare."""

    kind: Literal["hydroshare"] = "hydroshare"
    prefix: kinds.ProviderPrefix = "hydroshare"
    url: kinds.HostUrl = "https://www.hydroshare.org"
    wait: PositiveFloat = Field(default=300, description="seconds that preparing a resource for download may take there")


class CkanProvider(Frozen):
    """CKAN sites."""

    kind: Literal["ckan"] = "ckan"
    prefix: kinds.ProviderPrefix = "ckan"
    urls: tuple[kinds.HostUrl, ...] = Field(default=(), description="the sites that links may name; empty: any that the address rules allow")


class SwhidProvider(Frozen):
    """Software Heritage."""

    kind: Literal["swhid"] = "swhid"
    prefix: kinds.ProviderPrefix = "swhid"
    url: kinds.HostUrl = "https://archive.softwareheritage.org"
    token_file: Path | None = None
    wait: PositiveFloat = Field(default=900, description="seconds that cooking a directory may take there")
