"""BinderHub's `display_config` of each provider: what the form and other pages' scripts need to know of it. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

NO_REF: Final[dict[str, Any]] = {"enabled": False}
SWHID: Final = "swh:1:dir:0123456789abcdef0123456789abcdef01234567"
DOI: Final = r"10\.\d+\/(.)+"
_DOI_ADDRESS: Final = r"https?://(?:dx\.)?doi\.org/|doi:"

if TYPE_CHECKING:
    from binder_onprem.config.archives import CkanProvider, DataverseProvider, FigshareProvider, HydroshareProvider, SwhidProvider, ZenodoProvider
    from binder_onprem.config.providers import GistProvider, GitHubProvider, GitLabProvider, GitProvider, MercurialProvider


def _detect(url: str) -> dict[str, str]:
    """JavaScript's and Python's regular expressions both read this after ``(?<`` is spelled ``(?P<`` for the latter."""
    host = re.escape(url.partition("://")[2].rstrip("/"))
    return {"regex": rf"^(https?://(www\.)?{host}/)?(?<repo>.*[^/])/?"}


def _name(kind: str, url: str, usual: str) -> str:
    return kind if url.rstrip("/") == usual else f"{kind} ({url.partition('://')[2].rstrip('/')})"


def github(provider: GitHubProvider) -> dict[str, Any]:
    """Of a GitHub."""
    return {
        "displayName": _name("GitHub", provider.url, "https://github.com"),
        "id": provider.prefix,
        "spec": {"validateRegex": r"[^\/]+\/[^\/]+\/.+"},
        "detect": _detect(provider.url),
        "repo": {"label": "GitHub repository name or URL", "placeholder": "owner/repository", "urlEncode": False},
        "ref": {"enabled": True, "default": "HEAD"},
    }


def gitlab(provider: GitLabProvider) -> dict[str, Any]:
    """Of a GitLab."""
    return {
        "displayName": _name("GitLab", provider.url, "https://gitlab.com"),
        "id": provider.prefix,
        "spec": {"validateRegex": r"[^\/]+\/.+"},
        "detect": _detect(provider.url),
        "repo": {"label": "GitLab repository name or URL", "placeholder": "group/project", "urlEncode": True},
        "ref": {"enabled": True, "default": "HEAD"},
    }


def git(provider: GitProvider) -> dict[str, Any]:
    """Of any git server."""
    return {
        "displayName": "Git",
        "id": provider.prefix,
        "spec": {"validateRegex": r"[^\/]+\/.+"},
        "repo": {"label": "Git repository URL", "placeholder": "https://git.example.org/group/project.git", "urlEncode": True},
        "ref": {"enabled": True, "default": "HEAD"},
    }


def gist(provider: GistProvider) -> dict[str, Any]:
    """Of gists."""
    host = re.escape(provider.url.partition("://")[2])
    return {
        "displayName": _name("Gist", provider.url, "https://gist.github.com"),
        "id": provider.prefix,
        "spec": {"validateRegex": r"[^\/]+\/[^\/]+(\/[^\/]+)?"},
        "detect": {"regex": rf"^(https?://{host}/)?(?<repo>[^/]+/[^/]+)(?:/(?<ref>[0-9a-f]{{40}}))?/?$"},
        "repo": {"label": "Gist ID (username/gistId) or URL", "placeholder": "user/8ac7e8ba0dc2bdd3cb2ac4ba1f5ee56b", "urlEncode": False},
        "ref": {"enabled": True, "default": "HEAD"},
    }


def mercurial(provider: MercurialProvider) -> dict[str, Any]:
    """Of any Mercurial server."""
    return {
        "displayName": "Mercurial",
        "id": provider.prefix,
        "spec": {"validateRegex": r"[^\/]+\/.+"},
        "repo": {"label": "Mercurial repository URL", "placeholder": "https://hg.example.org/project", "urlEncode": True},
        "ref": {"enabled": True, "default": "HEAD"},
    }


def zenodo(provider: ZenodoProvider) -> dict[str, Any]:
    """Of Zenodo; a record's own address will do as well."""
    host = re.escape(provider.url.partition("://")[2])
    own = "|".join(rf"(?:{_DOI_ADDRESS})(?={re.escape(prefix)})" for prefix in provider.doi_prefixes)
    return {
        "displayName": _name("Zenodo DOI", provider.url, "https://zenodo.org"),
        "id": provider.prefix,
        "spec": {"validateRegex": rf"({DOI}|[0-9a-z-]+)"},
        "detect": {"regex": rf"^(https?://(?:www\.)?{host}/(?:records?|doi)/{f'|{own}' if own else ''})?(?<repo>[^?#]+)"},
        "repo": {"label": "Zenodo DOI", "placeholder": f"{(*provider.doi_prefixes, '10.5281/zenodo.')[0]}3242074", "urlEncode": False},
        "ref": NO_REF,
    }


def figshare(provider: FigshareProvider) -> dict[str, Any]:
    """Of Figshare."""
    return {
        "displayName": _name("FigShare DOI", provider.url, "https://figshare.com"),
        "id": provider.prefix,
        "spec": {"validateRegex": DOI},
        "detect": {"regex": rf"^((?:{_DOI_ADDRESS})(?=10\.6084/))?(?<repo>[^?#]+)"},
        "repo": {"label": "FigShare DOI", "placeholder": "10.6084/m9.figshare.9782777.v1", "urlEncode": False},
        "ref": NO_REF,
    }


def dataverse(provider: DataverseProvider) -> dict[str, Any]:
    """Of installations of Dataverse."""
    return {
        "displayName": "Dataverse DOI",
        "id": provider.prefix,
        "spec": {"validateRegex": DOI},
        "detect": {"regex": rf"^((?:{_DOI_ADDRESS})(?=10\.7910/))?(?<repo>[^?#]+)"},
        "repo": {"label": "Dataverse DOI", "placeholder": "10.7910/DVN/TJCLKP", "urlEncode": False},
        "ref": NO_REF,
    }


def hydroshare(provider: HydroshareProvider) -> dict[str, Any]:
    """Of HydroShare."""
    host = re.escape(provider.url.partition("://")[2].removeprefix("www."))
    return {
        "displayName": _name("Hydroshare resource", provider.url, "https://www.hydroshare.org"),
        "id": provider.prefix,
        "spec": {"validateRegex": r"[^/]+"},
        "detect": {"regex": rf"^(https?://(?:www\.)?{host}/resource/)?(?<repo>[^/?#]+)/?"},
        "repo": {"label": "Hydroshare resource id or URL", "placeholder": "8f7c2f0341ef4180b0dbe97f59130756", "urlEncode": False},
        "ref": NO_REF,
    }


def ckan(provider: CkanProvider) -> dict[str, Any]:
    """Of CKAN sites."""
    return {
        "displayName": "CKAN dataset",
        "id": provider.prefix,
        "spec": {"validateRegex": r"[^/]+"},
        "repo": {"label": "CKAN dataset URL", "placeholder": "https://demo.ckan.org/dataset/sample-dataset-1", "urlEncode": True},
        "ref": NO_REF,
    }


def swhid(provider: SwhidProvider) -> dict[str, Any]:
    """Of Software Heritage."""
    host = re.escape(provider.url.partition("://")[2])
    return {
        "displayName": _name("Software Heritage", provider.url, "https://archive.softwareheritage.org"),
        "id": provider.prefix,
        "spec": {"validateRegex": r"swh:1:(dir|rev):[0-9a-f]{40}(;.*)?"},
        "detect": {"regex": rf"^(https?://{host}/)?(?<repo>swh:1:[^/?#]+)/?"},
        "repo": {
            "label": "Software Heritage identifier (SWHID)",
            "placeholder": SWHID,
            "urlEncode": False,
        },
        "ref": NO_REF,
    }
