"""What links may choose: the form of it, who may have what, what becomes of it in a session."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from pydantic import ValidationError

from binder_onprem import choosing
from binder_onprem.choice import Choice, parse
from binder_onprem.cli.launch import query_of
from binder_onprem.config import Config, Projects
from binder_onprem.config.choice import Choices, Data, Profile
from binder_onprem.engine import offered
from binder_onprem.errors import InvalidSpec, Refused
from binder_onprem.hub import spawner
from binder_onprem.hub.session import Confinement, options, specification
from binder_onprem.model import Client, Role
from binder_onprem.web import choices as shown
from binder_onprem.web.links import with_choice
from tests.unit.test_session import GOOD, USER

PREBUILT = f"registry.example:5000/stats/r-base@sha256:{'d' * 64}"
CHOICES = Choices.model_validate(
    {
        "profiles": {
            "small": {"title": "Small", "memory": "1GiB", "cpus": 1},
            "large": {"memory": "8GiB", "cpus": 4, "pids": 2000, "groups": ["staff"]},
            "gpu": {"devices": ["nvidia.com/gpu=all"], "users": ["ada"], "roles": ["admin"]},
        },
        "data": {"census": {"path": "/srv/census"}, "maps": {"path": "/srv/maps", "at": "/opt/maps", "groups": ["staff"]}},
        "environment": ["COURSE", "LAB_*"],
        "images": {"stats": {"image": PREBUILT, "title": "Statistics"}},
    }
)
ANYBODY = Client("203.0.113.1")
STAFF = Client("203.0.113.1", "bob", groups=frozenset({"staff"}))
ADA = Client("203.0.113.1", "ada")


@pytest.mark.parametrize(
    ("query", "choice"),
    [
        ("", Choice()),
        ("urlpath=lab&labpath=x&build_token=y&profile=", Choice()),
        ("profile=large", Choice("large")),
        ("profile=large&profile=large", Choice("large")),
        ("data=maps,census&data=census", Choice(data=("census", "maps"))),
        ("env.B=2&env.A=x y", Choice(env=(("A", "x y"), ("B", "2")))),
        ("env.A=", Choice(env=(("A", ""),))),
        ("project=thesis", Choice(project="thesis")),
        ("image=stats&env.A=é", Choice(image="stats", env=(("A", "é"),))),
    ],
)
def test_a_link_says_what_it_chooses(query: str, choice: Choice) -> None:
    assert parse(parse_qsl(query, keep_blank_values=True)) == choice
    assert parse(parse_qsl(choice.query, keep_blank_values=True)) == choice


@pytest.mark.parametrize(
    "query",
    [
        "profile=../x",
        "profile=Large",
        "profile=a&profile=b",
        "data=/etc",
        "data=a,../b",
        "data=" + ",".join(f"d{number}" for number in range(17)),
        "image=host/name@sha256:0",
        "env.=x",
        "env.A-B=x",
        "env.1A=x",
        "env.A=a%0Ab",
        "env.A=a%00",
        "env.A=" + "x" * 257,
        "env.A=1&env.A=2",
        "&".join(f"env.A{number}=1" for number in range(17)),
        "profile=" + "x" * 41,
    ],
)
def test_what_no_choice_can_be_is_refused_with_words(query: str) -> None:
    with pytest.raises(InvalidSpec, match="link") as refused:
        parse(parse_qsl(query, keep_blank_values=True))
    assert len(refused.value.message) < 200


def test_the_first_profile_one_may_have_is_the_usual_one() -> None:
    assert choosing.checked(Choice(), ANYBODY, CHOICES).profile == "small"
    assert choosing.checked(Choice(), ANYBODY, Choices()) == Choice()
    only = CHOICES.model_copy(update={"profiles": {"large": CHOICES.profiles["large"]}})
    assert choosing.checked(Choice(), ANYBODY, only).profile == ""
    assert choosing.checked(Choice(), STAFF, only).profile == "large"


@pytest.mark.parametrize(
    ("choice", "client", "error"),
    [
        (Choice("large"), STAFF, None),
        (Choice("large"), ANYBODY, Refused),
        (Choice("gpu"), ADA, None),
        (Choice("gpu"), replace(STAFF, roles=frozenset({Role.ADMIN})), None),
        (Choice("gpu"), STAFF, Refused),
        (Choice("huge"), STAFF, InvalidSpec),
        (Choice(image="stats"), ANYBODY, None),
        (Choice(image="other"), ANYBODY, InvalidSpec),
        (Choice(data=("census",)), ANYBODY, None),
        (Choice(data=("census", "maps")), ANYBODY, Refused),
        (Choice(data=("census", "maps")), STAFF, None),
        (Choice(env=(("COURSE", "1"), ("LAB_2", "x"))), ANYBODY, None),
        (Choice(env=(("OTHER", "1"),)), ANYBODY, Refused),
        (Choice(env=(("COURSE2", "1"),)), ANYBODY, Refused),
        (Choice(env=(("LAB_TOKEN", "1"),)), ANYBODY, Refused),
    ],
)
def test_who_may_have_what(choice: Choice, client: Client, error: type[Exception] | None) -> None:
    if error is None:
        assert choosing.checked(choice, client, CHOICES).data == choice.data
        return
    with pytest.raises(error):
        choosing.checked(choice, client, CHOICES)


@pytest.mark.parametrize(
    ("choice", "client", "error", "words"),
    [
        (Choice(project="thesis"), ADA, None, ""),
        (Choice(project="thesis"), STAFF, Refused, "may not have projects"),
        (Choice(project="thesis"), ANYBODY, Refused, "have logged in"),
        (Choice(project="thesis"), replace(ADA, service=True), Refused, "have logged in"),
        (Choice(project="thesis", image="stats"), ADA, InvalidSpec, "either project or image"),
    ],
)
def test_projects_are_for_people_whom_the_site_lets_have_them(choice: Choice, client: Client, error: type[Exception] | None, words: str) -> None:
    projects = Projects(enabled=True, users=("ada",))
    if error is None:
        assert choosing.checked(choice, client, CHOICES, projects).project == "thesis"
        return
    with pytest.raises(error, match=words):
        choosing.checked(choice, client, CHOICES, projects)
    with pytest.raises(InvalidSpec, match="keeps no projects"):
        choosing.checked(choice, client, CHOICES)


def test_words_name_only_what_one_may_have() -> None:
    with pytest.raises(InvalidSpec, match=r"profile=huge, which does not exist here\. There is: small\."):
        choosing.checked(Choice("huge"), ANYBODY, CHOICES)


@pytest.mark.parametrize(
    "bad",
    [
        {"profiles": {"../x": {}}},
        {"profiles": {"x": {"devices": ["/etc/passwd"]}}},
        {"profiles": {"x": {"devices": ["/dev/../etc/x"]}}},
        {"profiles": {"x": {"volumes": ["/:/host"]}}},
        {"data": {"x": {"path": "relative"}}},
        {"data": {"x": {"path": "/"}}},
        {"data": {"x": {"path": "/srv/../etc"}}},
        {"data": {"x": {"path": "/srv/x", "at": "/etc"}}},
        {"data": {"x": {"path": "/srv/x", "at": "/data/../../etc"}}},
        {"images": {"x": {"image": "host/name:tag"}}},
        {"images": {"x": {"image": "host/name"}}},
        *({"environment": [name]} for name in ("PATH", "LD_*", "*", "PYTHONPATH", "JUPYTER_*", "http_proxy", "HTTPS_PROXY", "MY_TOKEN", "A=B")),
    ],
)
def test_what_an_administrator_must_not_list(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Choices.model_validate(bad)


SITE = Confinement.of(Config(choice=CHOICES), base=None)


def made(**more: object) -> dict[str, Any]:
    return specification("/jupyter/user/x/", options(USER, GOOD | more, SITE), SITE)


def test_a_session_gets_what_was_chosen() -> None:
    body = made(profile="large", data=["census", "maps"], env={"COURSE": "101"})
    limits = body["resource_limits"]
    assert (limits["memory"], limits["cpu"]["quota"], limits["pids"]) == ({"limit": 8 * 2**30, "swap": 8 * 2**30}, 400_000, {"limit": 2000})
    assert body["shm_size"] == 2 * 2**30
    assert [(mount["source"], mount["destination"]) for mount in body["mounts"]] == [("/srv/census", "/data/census"), ("/srv/maps", "/opt/maps")]
    assert all({"ro", "nosuid", "nodev"} <= set(mount["options"]) for mount in body["mounts"])
    assert (body["env"]["COURSE"], body["env"]["BINDER_PROFILE"]) == ("101", "large")
    assert made(profile="gpu")["devices"] == [{"path": "nvidia.com/gpu=all"}]
    assert made(image=PREBUILT)["image"] == PREBUILT


@pytest.mark.parametrize(
    "more",
    [
        {"profile": "huge"},
        {"profile": "../x"},
        {"data": ["other"]},
        {"data": ["/etc"]},
        {"data": "census"},
        {"data": ["census"] * 17},
        {"env": {"LD_PRELOAD": "/x"}},
        {"env": {"JUPYTER_TOKEN": "x"}},
        {"env": {"A B": "x"}},
        {"env": {"A": "x\n"}},
        {"env": {"A": 1}},
        {"image": PREBUILT.replace("d", "e")},
        {"memory": 1},
    ],
)
def test_the_spawner_believes_nobody(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"hold|ours"):
        options(USER, GOOD | more, SITE)


def test_a_link_cannot_overrule_what_the_session_is_told() -> None:
    assert made(env={"COURSE": "1"})["env"]["JUPYTER_TOKEN"] == GOOD["token"]


def test_what_this_machine_lacks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offered, "CDI_FOLDERS", (tmp_path,))
    gpu = Profile(devices=("nvidia.com/gpu=all",))
    assert "nvidia.com/gpu=all" in (offered.missing(gpu, ()) or "")
    (tmp_path / "broken.yaml").write_text("a: [")
    (tmp_path / "list.json").write_text("[]")
    described = {"kind": "nvidia.com/gpu", "devices": [{"name": "0"}, {"name": "all", "containerEdits": {"deviceNodes": [{"path": "/dev/null"}]}}]}
    (tmp_path / "nvidia.json").write_text(json.dumps(described))
    assert offered.missing(gpu, ()) is None
    (tmp_path / "nvidia.json").write_text(json.dumps(described | {"containerEdits": {"deviceNodes": [{"path": "/dev/no-such"}]}}))
    assert offered.missing(gpu, ()), "its driver is not loaded"
    assert offered.missing(Profile(devices=("nvidia.com/gpu=7",)), ())
    assert offered.missing(Profile(devices=("/dev/null",)), ()) is None
    assert offered.missing(Profile(devices=("/dev/no-such",)), ())
    tmp_path.chmod(0o755)
    assert offered.missing(Profile(), [Data(path=tmp_path)]) is None
    assert offered.missing(Profile(), [Data(path=tmp_path / "gone")])


def test_what_sessions_cannot_read_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "closed" / "data"
    folder.mkdir(parents=True)
    data = Data(path=folder)
    folder.chmod(0o750)
    assert "chmod -R o+rX" in (offered.unreadable(data, parents=False) or "")
    assert "may not read" in (offered.missing(Profile(), [data]) or "")
    folder.chmod(0o755)
    assert offered.unreadable(Data(path=Path("/etc/ssl/certs")), parents=True) is None
    (folder / "link").symlink_to("/nowhere")
    (folder / "sub").mkdir(mode=0o755)
    (folder / "sub" / "secret").write_text("")
    (folder / "sub" / "secret").chmod(0o640)
    assert "sub/secret" in (offered.unreadable(data, parents=False) or "")
    assert offered.missing(Profile(), [data]) is None, "a link gets what there is"
    (folder / "sub" / "secret").chmod(0o644)
    assert offered.unreadable(data, parents=False) is None
    folder.parent.chmod(0o700)
    assert offered.unreadable(data, parents=False) is None
    assert f"chmod o+x {folder.parent}" in (offered.unreadable(data, parents=True) or "")
    assert offered.unreadable(Data(path=tmp_path / "gone"), parents=True) == "not there"
    (tmp_path / "file").write_text("")
    assert offered.unreadable(Data(path=tmp_path / "file"), parents=True) == "no directory"


def test_the_page_asks_only_when_there_is_something_to_ask() -> None:
    config = Config(choice=CHOICES)
    assert not shown.asks(Choice(), ANYBODY, config)
    assert shown.asks(Choice(), STAFF, config)
    assert not shown.asks(Choice("small"), STAFF, config)
    page = shown.offered(Choice(data=("maps",)), STAFF, config, str)
    assert [(one["title"], one["what"]) for one in page["profiles"]] == [
        ("Small", "1 GiB of memory, 1 processors"),
        ("large", "8 GiB of memory, 4 processors"),
    ]
    assert [(one["name"], one["chosen"]) for one in page["data"]] == [("census", False), ("maps", True)]
    chosen = Choice("small", "stats", ("census",), (("COURSE", "<b>"),))
    assert shown.told(chosen, config, str) == "Profile: Small · Image: Statistics · Data: census · COURSE=<b>"


@pytest.mark.parametrize(("path", "link"), [("v2/gh/o/r/HEAD", "v2/gh/o/r/HEAD?"), ("v2/gh/o/r/HEAD?urlpath=lab", "v2/gh/o/r/HEAD?urlpath=lab&")])
def test_a_choice_travels_in_links(path: str, link: str) -> None:
    assert with_choice(path, Choice("large", data=("a", "b"))) == link + "profile=large&data=a%2Cb"
    assert with_choice(path, Choice()) == path


def test_the_command_takes_the_links_choice_and_its_own() -> None:
    nothing: dict[str, Any] = {"profile": None, "data": (), "env": (), "image": None}
    link = "https://b.example/v2/gh/o/r/HEAD?urlpath=lab&profile=small&env.COURSE=1"
    assert query_of(link, **nothing) == "profile=small&env.COURSE=1"
    own = nothing | {"profile": "large", "env": ("COURSE=2",), "data": ("b", "a")}
    assert query_of(link, **own) == "profile=large&data=a%2Cb&env.COURSE=2"
    assert query_of("gh/o/r/HEAD", **nothing) == ""
    with pytest.raises(InvalidSpec, match="NAME=VALUE"):
        query_of("gh/o/r/HEAD", **(nothing | {"env": ("COURSE",)}))


async def test_data_on_a_server_that_does_not_answer_keeps_the_hub_from_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, asked = threading.Event(), threading.Event()

    def hangs(_profile: Profile, _data: object) -> str | None:
        asked.set()
        answers.wait(10)
        return None

    monkeypatch.setattr(spawner, "missing", hangs)
    monkeypatch.setattr(spawner, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(spawner.PodmanSpawner, "site", replace(SITE, choices=Choices(data={"far": Data(path=tmp_path)})), raising=False)
    one = spawner.PodmanSpawner()
    looking = asyncio.create_task(one._lacking(options(USER, GOOD | {"data": ["far"]}, one.site)))
    try:
        for _ in range(5):
            await asyncio.sleep(0.01)  # the hub goes on
        assert (asked.is_set(), looking.done()) == (True, False)
        assert await looking == offered.NOT_THERE
    finally:
        answers.set()
