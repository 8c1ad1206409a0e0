"""Resolving records against a server on loopback that answers like the services, well and badly."""

from __future__ import annotations

import json
import random
import re
import time
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from binder_onprem.config import Config, load
from binder_onprem.content import Content, File
from binder_onprem.egress.addresses import AddressRules
from binder_onprem.errors import AddressRefused, BinderError, ConfigError, InvalidSpec, LimitHit, ProviderUnavailable, RefNotFound
from binder_onprem.model import VERSION, ImageRef, RepoSpec, ResolvedRepo
from binder_onprem.providers import checked_session, table
from binder_onprem.providers.links import escaped
from binder_onprem.store.tables import resolved
from tests.repos import hosts
from tests.repos.hosts import GIST, OTHER, RESOURCE, SHA, Host, host
from tests.unit.test_providers import sources

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from binder_onprem.interfaces import Provider

FILES = {"a.ipynb": b"{}", "requirements.txt": b"six\n"}
LOOPBACK = ("127.0.0.0/8",)


def config(at: Host, doi: str | None = "", **resolve: Any) -> Config:
    doi = at.url if doi == "" else doi
    providers = [
        {"kind": "gist", "url": at.url, "api": f"{at.url}/api"},
        {"kind": "zenodo", "url": at.url, "doi": doi},
        {"kind": "figshare", "url": at.url, "api": f"{at.url}/v2", "doi": doi},
        {"kind": "dataverse", "urls": [at.url], "doi": doi},
        {"kind": "hydroshare", "url": at.url},
        {"kind": "ckan"},
        {"kind": "swhid", "url": at.url},
        {"kind": "mercurial"},
        {"kind": "github", "url": at.url, "api": f"{at.url}/api"},
        {"kind": "gitlab", "url": at.url},
    ]
    return Config.model_validate({"providers": providers, "resolve": {"timeout": 2, "ttl": 0, "bytes": 200_000, **resolve}})


@asynccontextmanager
async def providers(site: Config, allow: tuple[str, ...] = LOOPBACK) -> AsyncIterator[dict[str, Provider]]:
    rules = AddressRules(allow, site.network.pool)
    async with checked_session(site, rules, sources()) as session:
        yield dict(table(site, sources(), rules, session))


async def resolve(at: Host, link: str, site: Config | None = None, allow: tuple[str, ...] = LOOPBACK) -> ResolvedRepo:
    prefix, _, path = link.partition("/")
    async with providers(site or config(at), allow) as found:
        return await found[prefix].resolve(found[prefix].parse(path))


@pytest.fixture
def at() -> Any:
    with host() as served:
        yield served


def plan(repo: ResolvedRepo) -> list[tuple[str, int | None, str]]:
    assert repo.content
    return [(file.path, file.size, file.checksum) for file in repo.content.files]


def expected(files: dict[str, bytes] = FILES) -> list[tuple[str, int | None, str]]:
    return [(name, len(data), f"md5:{hosts.md5(data)}") for name, data in files.items()]


@pytest.mark.parametrize(("ref", "commit"), [("", SHA), ("/HEAD", SHA), ("/main", SHA), (f"/{OTHER}", OTHER)])
async def test_gists(at: Host, ref: str, commit: str) -> None:
    hosts.gist(at)
    repo = await resolve(at, f"gist/ana/{GIST}{ref}")
    assert (repo.commit, repo.path, repo.url) == (commit, f"ana/{GIST}/{commit}", f"{at.url}/ana/{GIST}.git")
    assert (repo.ref_url, repo.content) == (f"{at.url}/ana/{GIST}/{commit}", None)


async def test_gists_that_are_secret_absent_or_have_no_such_version(at: Host) -> None:
    hosts.gist(at, public=False)
    with pytest.raises(RefNotFound, match="secret gist"):
        await resolve(at, f"gist/ana/{GIST}")
    site = config(at)
    allowing = [part.model_copy(update={"secret": True}) if part.kind == "gist" else part for part in site.providers]
    open_ = site.model_copy(update={"providers": tuple(allowing)})
    assert (await resolve(at, f"gist/ana/{GIST}", open_)).commit == SHA
    hosts.gist(at)
    with pytest.raises(RefNotFound, match="has no version 111111111111"):
        await resolve(at, f"gist/ana/{GIST}/{'1' * 40}")
    with pytest.raises(RefNotFound, match="gist does not exist"):
        await resolve(at, "gist/ana/0")


async def test_an_etag_is_sent_back_and_304_means_the_same(at: Host) -> None:
    hosts.gist(at)
    hosts.zenodo(at, FILES)
    async with providers(config(at)) as found:
        for link in (f"gist/ana/{GIST}", "zenodo/10.5281/zenodo.3242074"):
            prefix, _, path = link.partition("/")
            first, second = [await found[prefix].resolve(found[prefix].parse(path)) for _ in range(2)]
            assert first == second
            assert [request.headers.get("If-None-Match") for request in at.seen[-2:]] in ([None, 'W/"g1"'], [None, '"1"'])
        assert found["gist"].provider.rate_remaining == 41  # type: ignore[attr-defined]
        hosts.zenodo(at, {"new": b"n"})
        at.answers["/api/records/3242074"][1]["ETag"] = '"2"'  # type: ignore[index]
        changed = await found["zenodo"].resolve(found["zenodo"].parse("10.5281/zenodo.3242074"))
    assert plan(changed) == expected({"new": b"n"})


@pytest.mark.parametrize(
    "closed",
    [
        {"access": {"record": "restricted", "files": "restricted"}},
        {"access": {"record": "public", "files": "restricted"}},
        {"metadata": {"access_right": "restricted"}},
    ],
)
async def test_a_record_that_only_the_sites_token_may_see_is_not_there(at: Host, closed: dict[str, Any]) -> None:
    hosts.zenodo(at, FILES)
    record = json.loads(at.answers["/api/records/3242074"][2])  # type: ignore[index]
    at.says("/api/records/3242074", record | closed)
    with pytest.raises(RefNotFound, match="is not public"):
        await resolve(at, "zenodo/10.5281/zenodo.3242074")


async def test_gitlab_answers_by_etag(at: Host) -> None:
    path = "/api/v4/projects/g%2Fp/repository/commits/main"
    at.says(path, {"id": SHA}, ETag='W/"x"')
    async with providers(config(at)) as found:
        for _ in range(2):
            assert (await found["gl"].resolve(found["gl"].parse("g%2Fp/main"))).commit == SHA
    assert [request.headers.get("If-None-Match") for request in at.seen] == [None, 'W/"x"']


@pytest.mark.parametrize(
    ("path", "persistent"),
    [
        ("10.5281/zenodo.3242074", "10.5281/zenodo.3242074"),
        ("10.5281/zenodo.3242073", "10.5281/zenodo.3242074"),
        ("10.5281/Zenodo.3242074", "10.5281/Zenodo.3242074"),
        ("doi:10.5281/zenodo.3242074", "10.5281/zenodo.3242074"),
        ("https%3A%2F%2Fdoi.org%2F10.5281%2Fzenodo.3242074/", "10.5281/zenodo.3242074"),
        ("3242074", "10.5281/zenodo.3242074"),
    ],
)
async def test_zenodo(at: Host, path: str, persistent: str) -> None:
    hosts.zenodo(at, FILES)
    repo = await resolve(at, f"zenodo/{path}", config(at, doi="http://127.0.0.1:9"))  # nobody asks the resolver for what the DOI says
    assert (repo.commit, repo.path, repo.ref_url) == ("3242074", persistent, f"{at.url}/records/3242074")
    assert plan(repo) == expected()
    assert repo.content
    assert not repo.content.unpack


async def test_zenodo_by_a_doi_of_another_kind(at: Host) -> None:
    hosts.zenodo(at, {"only.zip": b"PK"})
    hosts.handle(at, "10.1234/our.paper", f"{at.url}/record/3242074")
    hosts.handle(at, "10.1234/concept", f"{at.url}/doi/10.5281/zenodo.3242073")
    repo = await resolve(at, "zenodo/10.1234/our.paper")
    assert (repo.commit, repo.path, repo.content and repo.content.unpack) == ("3242074", "10.1234/our.paper", True)
    assert (await resolve(at, "zenodo/10.1234/concept")).path == "10.5281/zenodo.3242074"
    with pytest.raises(RefNotFound, match="does not look up DOIs"):
        await resolve(at, "zenodo/10.1234/our.paper", config(at, doi=None))


async def test_another_invenio(at: Host) -> None:
    hosts.invenio(at, FILES)
    hosts.handle(at, "10.22002/82kn8-3nk04", f"{at.url}/records/82kn8-3nk04")
    site = Config.model_validate({"providers": [{"kind": "zenodo", "prefix": "ours", "url": at.url, "doi": at.url, "doi_prefixes": ["10.22002/"]}]})
    repo = await resolve(at, "ours/10.22002/82kn8-3nk04", site)
    assert (repo.commit, repo.path) == ("82kn8-3nk04", "10.22002/82kn8-3nk04")
    assert plan(repo) == expected()
    assert f"{at.url}/api/records/82kn8-3nk04/files/a.ipynb/content" == repo.content.files[0].url  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "there", ["http://169.254.169.254/records/1", "http://10.0.0.1/record/1", "https://zenodo.org.evil.example/records/1", "file:///etc"]
)
async def test_a_doi_that_leads_elsewhere_is_refused_without_a_connection(at: Host, there: str) -> None:
    hosts.handle(at, "10.1234/x", there)
    for link in ("zenodo/10.1234/x", "figshare/10.1234/x"):
        with pytest.raises(RefNotFound, match="leads to"):
            await resolve(at, link)
    assert at.paths() == ["/api/handles/10.1234/x"] * 2


async def test_a_resolver_or_an_api_that_redirects_inside_is_refused(at: Host) -> None:
    for path in ("/api/handles/10.1234/x", "/api/records/1"):
        at.answers[path] = (302, {"Location": "http://169.254.169.254/latest/meta-data/"}, b"")
    for link in ("zenodo/10.1234/x", "zenodo/1"):
        with pytest.raises(AddressRefused):
            await resolve(at, link)


@pytest.mark.parametrize(
    ("doi", "commit", "persistent"),
    [
        ("10.6084/m9.figshare.9782777.v2", "9782777.v2", "10.6084/m9.figshare.9782777.v2"),
        ("10.6084/m9.figshare.9782777", "9782777.v3", "10.6084/m9.figshare.9782777.v3"),
        ("10.25384/sage.9782777.v1", "9782777.v1", "10.25384/sage.9782777.v1"),
        ("10.25384/sage.9782777", "9782777.v2", "10.25384/sage.9782777.v2"),
    ],
)
async def test_figshare(at: Host, doi: str, commit: str, persistent: str) -> None:
    hosts.figshare(at, FILES)
    hosts.handle(at, "10.25384/sage.9782777.v1", f"{at.url}/articles/dataset/Title_of_it/9782777")
    hosts.handle(at, "10.25384/sage.9782777", f"{at.url}/articles/Title_of_it/9782777/2")
    repo = await resolve(at, f"figshare/{doi}")
    assert (repo.commit, repo.path, repo.ref_url) == (commit, persistent, f"{at.url}/{persistent}")
    assert plan(repo) == expected()


async def test_dataverse(at: Host) -> None:
    files = {"code/run.ipynb": b"{}", "requirements.txt": b"six\n"}
    hosts.dataverse(at, files)
    for doi in ("10.7910/DVN/TJCLKP", "10.7910/DVN/TJCLKP/3YRRYJ"):
        repo = await resolve(at, f"dataverse/{doi}")
        assert (repo.commit, repo.path, repo.ref_url) == ("3035124.v2.1", "10.7910/DVN/TJCLKP", "https://doi.org/10.7910/DVN/TJCLKP")
        assert plan(repo) == [*expected(files), ("t.csv", None, "")]
        assert repo.notice
        assert "restricted" in repo.notice
    assert not [path for path in at.paths() if "handles" in path]


async def test_several_installations_of_dataverse(at: Host) -> None:
    hosts.dataverse(at, FILES)
    hosts.handle(at, "10.7910/DVN/TJCLKP", f"{at.url}/citation?persistentId=doi:10.7910/DVN/TJCLKP")
    hosts.handle(at, "10.7910/DVN/OTHER", "https://dataverse.elsewhere.example/citation?persistentId=doi:10.7910/DVN/OTHER")
    with host() as other:
        parts = {"kind": "dataverse", "urls": [other.url, at.url]}
        assert (
            await resolve(at, "dataverse/10.7910/DVN/TJCLKP", Config.model_validate({"providers": [{**parts, "doi": at.url}]}))
        ).commit == "3035124.v2.1"
        assert not other.seen
        asked = Config.model_validate({"providers": [{**parts, "doi": None}]})
        assert (await resolve(at, "dataverse/10.7910/DVN/TJCLKP", asked)).commit == "3035124.v2.1"
        assert other.seen
        with pytest.raises(RefNotFound, match=r"leads to dataverse\.elsewhere\.example"):
            await resolve(at, "dataverse/10.7910/DVN/OTHER", Config.model_validate({"providers": [{**parts, "doi": at.url}]}))
        with pytest.raises(RefNotFound, match="No dataset has this DOI"):
            await resolve(at, "dataverse/10.7910/DVN/NONE", asked)


PAGE = f"https://www.hydroshare.org/resource/{RESOURCE}"


@pytest.mark.parametrize("path", [RESOURCE, f"{PAGE}/", escaped(PAGE)])
async def test_hydroshare(at: Host, path: str) -> None:
    hosts.hydroshare(at, FILES)
    repo = await resolve(at, f"hydroshare/{path}")
    assert (repo.commit, repo.path, repo.ref_url) == (f"{RESOURCE}.v1569427757", RESOURCE, f"{at.url}/resource/{RESOURCE}")
    assert repo.content
    assert (repo.content.kind, repo.content.inside, repo.content.wait) == ("bag", f"{RESOURCE}/data/contents", 300)


async def test_ckan(at: Host) -> None:
    hosts.ckan(at, FILES)
    dataset = f"{at.url}/dataset/sample-dataset-1"
    repo = await resolve(at, f"ckan/{escaped(dataset)}")
    assert (repo.commit, repo.path, repo.url) == ("sample-dataset-1.v1653038443", escaped(dataset), dataset)
    assert plan(repo) == [(name, None, "") for name in FILES]
    for version in (f"{dataset}?activity_id=a1b2c3d4", f"{dataset}/history/a1b2c3d4"):
        old = await resolve(at, f"ckan/{escaped(version)}")
        assert old.commit.startswith("sample-dataset-1.v1621502443.")
    with pytest.raises(RefNotFound, match="not a CKAN"):
        await resolve(at, f"ckan/{escaped(at.url + '/dataset/none')}")


async def test_ckan_sites_may_be_named(at: Host) -> None:
    hosts.ckan(at, FILES)
    site = Config.model_validate({"providers": [{"kind": "ckan", "urls": ["https://data.uni.example"]}]})
    with pytest.raises(AddressRefused, match="has named"):
        await resolve(at, f"ckan/{escaped(at.url + '/dataset/sample-dataset-1')}", site)
    with pytest.raises(AddressRefused):
        await resolve(at, f"ckan/{escaped(at.url + '/dataset/sample-dataset-1')}", allow=())
    assert not at.seen


@pytest.mark.parametrize("path", [f"swh:1:dir:{SHA}", f"swh:1:rev:{OTHER}", f"swh:1:dir:{SHA};origin=https://example.org/r;path=/a"])
async def test_software_heritage(at: Host, path: str) -> None:
    hosts.swh(at, FILES)
    repo = await resolve(at, f"swhid/{path}")
    assert (repo.commit, repo.path) == (SHA, path.partition(";")[0])
    assert repo.content
    assert repo.content.files[0].url == f"{at.url}/api/1/vault/flat/swh:1:dir:{SHA}/"
    with pytest.raises(RefNotFound, match="does not have this"):
        await resolve(at, f"swhid/swh:1:dir:{OTHER}")


async def test_mercurial(at: Host) -> None:
    kind = {"Content-Type": "application/mercurial-0.1"}
    at.answers["/r?cmd=lookup&key=default"] = (200, kind, f"1 {SHA}\n".encode())
    at.answers["/r?cmd=lookup&key=no"] = (200, kind, b"0 unknown revision 'no'\n")
    at.answers["/html?cmd=lookup&key=default"] = (200, {"Content-Type": "text/html"}, b"<html>")
    at.answers["/empty?cmd=lookup&key=default"] = (200, kind, b"1 " + b"0" * 40 + b"\n")
    url = escaped(f"{at.url}/r")
    repo = await resolve(at, f"hg/{url}/HEAD")
    assert (repo.commit, repo.path, repo.content) == (SHA, f"{url}/{SHA}", Content("mercurial"))
    assert (await resolve(at, f"hg/{url}/{OTHER}")).commit == OTHER
    cases = ((f"{url}/no", RefNotFound), (f"{escaped(at.url + '/html')}/HEAD", ProviderUnavailable))
    for link, error in (*cases, (f"{escaped(at.url + '/empty')}/HEAD", RefNotFound)):
        with pytest.raises(error):
            await resolve(at, f"hg/{link}")


LINKS: dict[str, tuple[str, str]] = {
    "gist": (f"gist/ana/{GIST}", f"/api/gists/{GIST}"),
    "zenodo": ("zenodo/3242074", "/api/records/3242074"),
    "figshare": ("figshare/10.6084/m9.figshare.9782777.v1", "/v2/articles/9782777/versions/1"),
    "dataverse": ("dataverse/10.7910/DVN/TJCLKP", "/api/datasets/:persistentId/?persistentId=doi:10.7910/DVN/TJCLKP"),
    "hydroshare": (f"hydroshare/{RESOURCE}", f"/hsapi/resource/{RESOURCE}/scimeta/elements"),
    "swhid": (f"swhid/swh:1:rev:{SHA}", f"/api/1/revision/{SHA}/"),
}
NONSENSE: tuple[Any, ...] = ([], {}, None, 1, "x", {"files": 1}, {"data": []}, {"dates": [1]}, {"directory": "x"}, {"public": True, "history": []})


@pytest.mark.parametrize("name", LINKS)
async def test_every_kind_of_bad_answer(at: Host, name: str) -> None:
    link, path = LINKS[name]
    cases: list[tuple[tuple[int, dict[str, str], bytes], type[BinderError], str]] = [
        ((404, {}, b""), RefNotFound, "."),
        ((403, {}, b""), RefNotFound, "."),
        ((401, {}, b""), RefNotFound, "."),
        ((500, {}, b"secret words"), ProviderUnavailable, "HTTP 500"),
        ((429, {"Retry-After": "170"}, b""), ProviderUnavailable, "Try again in 3 min"),
        ((429, {"X-RateLimit-Reset": str(int(time.time()) + 119)}, b""), ProviderUnavailable, "Try again in 2 min"),
        ((429, {}, b""), ProviderUnavailable, "Try again later"),
        ((200, {}, b"a" * 300_000), ProviderUnavailable, "longer than"),
        ((200, {"Content-Length": "99999"}, b"{"), ProviderUnavailable, "."),
        ((200, {}, b"[" * 100_000), ProviderUnavailable, "."),
        ((302, {"Location": path}, b""), ProviderUnavailable, "without end"),
    ]
    async with providers(config(at)) as found:
        prefix, _, rest = link.partition("/")
        asker = found[prefix].provider  # type: ignore[attr-defined] # without its memory
        for answer, error, words in cases:
            at.answers[path] = answer
            with pytest.raises(error, match=words) as caught:
                await asker.resolve(asker.parse(rest))
            assert "secret" not in caught.value.message
            assert "127.0.0.1" not in caught.value.message
        for body in NONSENSE:
            at.says(path, body)
            with pytest.raises((ProviderUnavailable, RefNotFound)):
                await asker.resolve(asker.parse(rest))


@pytest.mark.parametrize("bad", ["../a", "/etc/passwd", "a/../../b", "a\\b", "a\0b", "a\nb", "", "x" * 300, "a/" * 80 + "b"])
async def test_names_of_files_that_lead_out(at: Host, bad: str) -> None:
    hosts.zenodo(at, FILES)
    record = {"id": 1, "files": [{"key": bad, "size": 1, "checksum": "", "links": {"self": f"{at.url}/f"}}]}
    at.says("/api/records/1", record)
    with pytest.raises(ProviderUnavailable, match="whose name leads out"):
        await resolve(at, "zenodo/1")


NO_URLS = ["file:///etc/passwd", "ftp://h/x", "http://u:p@h/x", "//h/x", "", "http://", "javascript:1", "http://h/\u00e9", "http://h/" + "x" * 5000]


@pytest.mark.parametrize("bad", NO_URLS)
async def test_urls_of_files_that_are_none(at: Host, bad: str) -> None:
    at.says("/api/records/1", {"id": 1, "files": [{"key": "a", "size": 1, "checksum": "", "links": {"self": bad}}]})
    with pytest.raises(ProviderUnavailable):
        await resolve(at, "zenodo/1")


async def test_too_many_files_two_of_one_name_and_none(at: Host) -> None:
    one = {"size": 1, "checksum": "", "links": {"self": f"{at.url}/f"}}
    at.says("/api/records/1", {"id": 1, "files": [{"key": f"{n}", "links": {"self": "http://h/f"}} for n in range(2001)]})
    with pytest.raises(LimitHit, match="2,001 files"):
        await resolve(at, "zenodo/1")
    at.says("/api/records/1", {"id": 1, "files": [{"key": "a", **one}, {"key": "./a", **one}]})
    with pytest.raises(ProviderUnavailable):
        await resolve(at, "zenodo/1")
    at.says("/api/records/1", {"id": 1, "files": []})
    with pytest.raises(RefNotFound, match="no files"):
        await resolve(at, "zenodo/1")
    at.says("/api/records/1", {"id": "../../x y", "files": [{"key": "a", **one}]})
    with pytest.raises(ProviderUnavailable):
        await resolve(at, "zenodo/1")


async def test_tokens_go_to_their_host_and_a_refused_one_is_told(at: Host, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("planted-token\n")
    site = config(at)
    named = site.model_copy(
        update={"providers": tuple(part.model_copy(update={"token_file": file}) if hasattr(part, "token_file") else part for part in site.providers)}
    )
    with host() as other:
        for name, (link, path) in LINKS.items():
            if name in ("dataverse", "hydroshare"):
                continue
            at.answers[path] = (302, {"Location": f"{other.url}/there"}, b"")
            with pytest.raises(RefNotFound):
                await resolve(at, link, named)
            assert "planted-token" in at.seen[-1].headers["Authorization"]
            assert "Authorization" not in other.seen[-1].headers
            at.answers[path] = (401, {}, b"")
            with pytest.raises(ProviderUnavailable, match="refuses this site's token"):
                await resolve(at, link, named)


async def test_github_says_when_it_was_asked_too_often(at: Host) -> None:
    at.answers[f"/api/gists/{GIST}"] = (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()) + 400)}, b"")
    with pytest.raises(ProviderUnavailable, match=r"GitHub rate limit exceeded. Try again in 10 minutes"):
        await resolve(at, f"gist/ana/{GIST}")
    at.answers[f"/api/gists/{GIST}"] = (403, {"X-RateLimit-Remaining": "9", "Retry-After": "60"}, b"")
    with pytest.raises(ProviderUnavailable, match=r"GitHub rate limit exceeded. Try again in 5 minutes"):
        await resolve(at, f"gist/ana/{GIST}")


async def test_a_plan_survives_the_database_and_names_a_safe_image(at: Host) -> None:
    makers: dict[str, Callable[[], None]] = {
        "zenodo/3242074": lambda: hosts.zenodo(at, FILES),
        f"hydroshare/{RESOURCE}": lambda: hosts.hydroshare(at, FILES),
        "dataverse/10.7910/DVN/TJCLKP": lambda: hosts.dataverse(at, FILES),
    }
    for link, make in makers.items():
        make()
        repo = await resolve(at, link)
        assert resolved(asdict(repo)) == repo
        image = ImageRef.of(repo, "127.0.0.1:1/binder", "a" * 64)
        assert VERSION.fullmatch(repo.commit)
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", image.tag)
        assert re.fullmatch(r"127\.0\.0\.1:1/binder/[a-z0-9]+(-[a-z0-9]+)*", image.repository)


def test_a_repository_from_before_there_were_plans_is_read() -> None:
    repo = ResolvedRepo(RepoSpec("gh", "o/r/HEAD", "https://example.org/o/r", "HEAD", "o-r"), SHA, "p", "u")
    old = asdict(repo)
    del old["content"]
    assert resolved(old) == repo
    content = Content("files", (File("http://h/a", "a", 1, "md5:" + "0" * 32),), unpack=True)
    assert Content.read(content.plain()) == content


@pytest.mark.parametrize("bad", ["ftp://h", "https://u:p@h", "h", "https://h/?x=1", "https://"])
def test_urls_in_settings(bad: str, tmp_path: Path) -> None:
    named = ({"kind": "zenodo", "url": bad}, {"kind": "github", "api": bad}, {"kind": "figshare", "doi": bad})
    for part in (*named, {"kind": "dataverse", "urls": [bad]}):
        file = tmp_path / "c.yaml"
        file.write_text(yaml.safe_dump({"providers": [part]}))
        with pytest.raises(ConfigError):
            load(file)


def test_configured_hosts_are_allowed_by_that_and_public_ones_are_not_more_than_public() -> None:
    site = Config.model_validate({"providers": [{"kind": "zenodo", "url": "http://data.uni.example:8080"}, {"kind": "swhid"}]})
    rules = AddressRules.of(site)
    rules.check_name("data.uni.example", 8080)
    with pytest.raises(AddressRefused):
        rules.check_name("archive.softwareheritage.org", 8080)


SPECS = {
    "gist": ["ana", "ana/", f"ana/{GIST}/x", f"ana/{GIST}/{SHA}/x", "-a/0", "a/-b", "a/../b", "a/xyz"],
    "zenodo": [
        *("x", "10.5281", "10.5281/", "10.5281/a b", "10.5281/../x", "10.1/x", "10.5281//x", "10.5281/-x", "10.5281/x%00", "10.5281/x?y"),
        "10.5281/$(id)",
    ],
    "figshare": ["1", "10.6084", "doi.org/x"],
    "dataverse": ["DVN/TJCLKP", "hdl:1902.1/x"],
    "hydroshare": ["x", "0" * 31, "0" * 33, "g" * 32],
    "ckan": [
        *("x", escaped("https://h"), escaped("ftp://h/dataset/x"), escaped("https://u:p@h/dataset/x"), escaped("https://h/dataset/..")),
        *(escaped("https://h/dataset/-x"), escaped("https://h/../dataset/x")),
    ],
    "swhid": ["x", "swh:1:cnt:" + SHA, "swh:2:dir:" + SHA, "swh:1:dir:" + SHA[1:], "swh:1:dir:" + SHA.upper()],
    "hg": [
        *("x", "https%3A%2F%2Fh%2Fr", "https%3A%2F%2Fh%2Fr/-x", "https%3A%2F%2Fh%2Fr/a(b)", "https%3A%2F%2Fh%2Fr/--config"),
        *("ssh%3A%2F%2Fh%2Fr/HEAD", "file%3A%2F%2F%2Fetc/HEAD"),
    ],
}


@pytest.mark.parametrize("name", SPECS)
async def test_links_that_are_none(at: Host, name: str) -> None:
    async with providers(config(at)) as found:
        for path in SPECS[name]:
            with pytest.raises(InvalidSpec):
                found[name].parse(path)
    assert not at.seen


PIECES = [
    *(piece for pieces in SPECS.values() for piece in pieces),
    *("10.5281/zenodo.1", RESOURCE, f"swh:1:dir:{SHA}", GIST, "%2e%2e", "%00", "%0a", "\u202e", "@{-1}", "--upload-pack=x", ";", "|", "`id`", "${x}"),
    *("%", "%zz", "http://127.0.0.1/", "\u0430", "é" * 300, "a" * 100_000, "doi:", "https://doi.org/", "//", "/"),
]


def parsed(provider: Provider, text: str) -> RepoSpec | str:
    try:
        return provider.parse(text)
    except InvalidSpec as error:
        return error.message


async def test_fuzz(at: Host) -> None:
    """Whatever is written in a link: a sentence, or a spec whose URL is one, quickly."""
    seed = random.Random(4)  # noqa: S311 - a test's
    async with providers(config(at)) as found:
        for _ in range(600):
            text = "".join(seed.choice(PIECES) for _ in range(seed.randint(1, 4)))
            for provider in found.values():
                spec = parsed(provider, text)
                if isinstance(spec, str):
                    assert len(spec) < 900
                    continue
                assert re.fullmatch(r"https?://[!-~]+", spec.url)
                assert not spec.ref.startswith("-")
                assert re.fullmatch(r"[a-z0-9-]+", spec.slug)
    assert not at.seen
