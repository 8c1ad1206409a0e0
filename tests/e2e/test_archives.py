"""Records that are not git, from the link to the session's files: a server on loopback answers like the services, everything else is real."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.e2e.kernel import kernel
from tests.e2e.stand import Stand, launch, ready
from tests.repos import hosts, mercurial
from tests.repos.hosts import NOTEBOOK, OTHER, RESOURCE, Host, host, tarred, zipped

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.real

FILES = {"requirements.txt": b"toolz\n", "a.ipynb": NOTEBOOK, "data/x.csv": b"1,2\n"}
LOOK = "import os, toolz; print(sorted(n for n in os.listdir() if not n.startswith('.')), open('data/x.csv').read().strip())"
SEEN = "['a.ipynb', 'data', 'requirements.txt'] 1,2\n"


@pytest.fixture(scope="module")
def at() -> Iterator[Host]:
    with host(int(os.environ.get("BINDER_ONPREM_TEST_HOST", "0"))) as served:
        yield served


@pytest.fixture(scope="module")
def binder(at: Host) -> Iterator[Stand]:
    """A Binder whose providers are all on the server, Mercurial enabled."""
    if os.geteuid():
        pytest.skip("a Binder of its own needs root: run the tests by `make test`")
    if running := os.environ.get("BINDER_ONPREM_TEST_ARCHIVES"):  # while writing tests: one that is up already, `host` on a port of its own
        yield Stand.at(Path(running))
        return
    stand = Stand.new(samples=False, build={"repository": "16MiB"}, providers=providers(at.url))
    try:
        stand.up()
        yield stand
    finally:
        stand.destroy()


def providers(url: str) -> list[dict[str, Any]]:
    return [
        {"kind": "zenodo", "url": url, "doi": url},
        {"kind": "figshare", "url": url, "api": f"{url}/v2", "doi": None},
        {"kind": "dataverse", "urls": [url], "doi": None},
        {"kind": "hydroshare", "url": url},
        {"kind": "ckan"},
        {"kind": "swhid", "url": url},
        {"kind": "mercurial"},
    ]


async def seen(binder: Stand, link: str) -> dict[str, Any]:
    end = await ready(binder, link)
    async with kernel(end) as session:
        assert await session.run(LOOK) == SEEN
    return end


async def test_a_record_that_is_one_zip(binder: Stand, at: Host) -> None:
    hosts.zenodo(at, {"owner-repo-v1.zip": zipped({f"owner-repo-1a2b3c/{name}": data for name, data in FILES.items()})})
    hosts.handle(at, "10.1234/paper", f"{at.url}/records/3242074")
    end = await seen(binder, "zenodo/10.1234/paper")
    assert end["repo_url"] == f"{at.url}/10.1234/paper"
    assert end["binder_persistent_request"] == "v2/zenodo/10.1234/paper"
    assert end["binder_ref_url"] == f"{at.url}/records/3242074"
    latest, before = await launch(binder, "zenodo/10.5281/zenodo.3242073")
    assert latest["binder_persistent_request"] == "v2/zenodo/10.5281/zenodo.3242074"
    assert any(event["message"].startswith("Fetching owner-repo-v1.zip") for event in before if event["phase"] == "fetching")
    row = next(row for row in binder.json("builds", "list") if row["repo_url"].endswith("10.1234/paper"))
    assert (row["state"], row["commit"]) == ("built", "3242074")


async def test_records_of_many_files_bags_and_what_is_cooked(binder: Stand, at: Host) -> None:
    """One environment, so that one build pays for it."""
    hosts.dataverse(at, FILES)
    hosts.hydroshare(at, FILES)
    hosts.swh(at, FILES)
    end = await ready(binder, "dataverse/10.7910/DVN/TJCLKP")
    async with kernel(end) as session:
        assert await session.run(LOOK) == SEEN.replace("]", ", 't.csv']")
    await seen(binder, f"hydroshare/{RESOURCE}")
    await seen(binder, f"swhid/swh:1:rev:{OTHER}")


async def test_a_mercurial_repository(binder: Stand, tmp_path: Path) -> None:
    node = mercurial.committed(tmp_path, FILES)
    with mercurial.served(tmp_path) as url:
        for ref in ("HEAD", "topic", node):
            end = await seen(binder, f"hg/{quote(url, safe='')}/{ref}")
            assert end["binder_persistent_request"].endswith(node)
        failed, _ = await launch(binder, f"hg/{quote(url, safe='')}/nothing")
        assert failed["code"] == "ref_not_found"


async def test_what_is_dangerous_is_refused_in_words(binder: Stand, at: Host) -> None:
    bomb = {f"{number}": b"\0" * (10 * 1024**2) for number in range(3)}
    cases = {
        "bomb.zip": (zipped(bomb), "limit", "16 MiB"),
        "bomb.tar.xz": (tarred(bomb, "w:xz"), "limit", "16 MiB"),
        "climb.zip": (zipped({"../../../../evil": b"x", "a": b"y"}), "build", "leads out of it"),
        "climb.tar.gz": (tarred({"/etc/evil": b"x"}), "build", "leads out of it"),
    }
    for number, (name, (data, code, words)) in enumerate(cases.items(), 100):
        hosts.zenodo(at, {name: data}, number, number + 1000)
        end, _ = await launch(binder, f"zenodo/{number}")
        assert (end["phase"], end["code"]) == ("failed", code), end
        assert words in end["message"]
        assert "/out" not in end["message"]


async def test_hosts_that_lie_or_lead_inside(binder: Stand, at: Host) -> None:
    large = (200, {}, b"x" * (17 * 1024**2))
    inside = (302, {"Location": "http://169.254.169.254/latest/"}, b"")
    cases = {201: (large, "larger than 16 MiB"), 202: (inside, "not one that links may name"), 203: ((404, {}, b""), "is not there")}
    for number, (answer, words) in cases.items():
        files = [{"key": "f", "size": None, "checksum": "", "links": {"self": f"{{base}}/odd/{number}"}}]
        at.says(f"/api/records/{number}", {"id": number, "files": files})
        at.answers[f"/odd/{number}"] = answer
        end, _ = await launch(binder, f"zenodo/{number}")
        assert end["phase"] == "failed"
        assert words in end["message"]
    hosts.zenodo(at, {"f": b"right"}, 204, 1204)
    at.serves("/api/records/204/files/f/content", b"wrong")
    end, _ = await launch(binder, "zenodo/204")
    assert "checksum" in end["message"]


async def test_the_default_ckan_provider_on_the_form_and_in_a_session(stand: Stand, at: Host) -> None:
    """On the Binder of all other tests: nothing needs to be configured for a CKAN."""
    files = {"requirements.txt": b"toolz\n", "a.ipynb": NOTEBOOK, "x.csv": b"1,2\n"}
    hosts.ckan(at, files)
    dataset = f"{at.url}/dataset/sample-dataset-1"
    end = await ready(stand, f"ckan/{quote(dataset, safe='')}")
    assert end["repo_url"] == dataset
    async with kernel(end) as session:
        assert await session.run("import toolz; print(open('x.csv').read())") == "1,2\n\n"
