from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from binder_onprem.config import SESSIONS_LOOPBACK, Config, Network, Session, Web
from binder_onprem.hub.project_home import ELSEWHERE, OWN
from binder_onprem.hub.session import MOST, Confinement, command, environment, options, patience, published, specification
from binder_onprem.reaper import STARTS

SITE = Confinement.of(Config(), base="127.0.0.1:8589/binder-base@sha256:" + "b" * 64)
LAUNCH = "0123456789abcdef"
USER = f"x-{LAUNCH}"
TOKEN = "t" * 43
GOOD: dict[str, Any] = {"image": f"127.0.0.1:8589/binder/x-0123456789ab@sha256:{'0' * 64}", "token": TOKEN, "launch_id": LAUNCH}


def test_what_the_daemon_sends_holds() -> None:
    assert options(USER, GOOD, SITE).container == f"binder-{LAUNCH}"
    assert options(USER, GOOD | {"image": SITE.base}, SITE).image == SITE.base


@pytest.mark.parametrize(
    "change",
    [
        {"image": "127.0.0.1:8589/binder/x-0123456789ab:latest"},
        {"image": f"docker.io/library/debian@sha256:{'0' * 64}"},
        {"image": f"127.0.0.1:8589/binder/../x@sha256:{'0' * 64}"},
        {"image": f"127.0.0.1:8589/binder/x@sha256:{'0' * 64}\n"},
        {"image": f"127.0.0.1:8589/binderx/x@sha256:{'0' * 64}"},
        {"image": f"127x0.0.1:8589/binder/x@sha256:{'0' * 64}"},
        {"image": "--privileged"},
        {"image": 7},
        {"token": "short"},
        {"token": TOKEN + "\n"},
        {"launch_id": "0123456789abcdeg"},
        {"launch_id": "fedcba9876543210"},
        {"launch_id": "../../../../../x"},
        {"repo_url": "http://x/\x00"},
        {"repo_url": "x" * 5000},
        {"privileged": True},
        {"volumes": ["/:/host"]},
    ],
)
def test_anything_else_is_refused_and_not_repeated(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"hold|ours|launch's") as caught:
        options(USER, GOOD | change, SITE)
    assert TOKEN not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("data", [None, [], "x", {}, {"image": GOOD["image"]}])
def test_what_is_no_object_or_incomplete_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match="hold"):
        options(USER, data, SITE)


PROJECT = {"id": "f" * 16, "slot": 3, "path": "/home/jovyan"}


def test_a_projects_session_has_its_home_and_its_ids() -> None:
    site = replace(SITE, projects=Path("/home-of-all/projects"))
    made = specification("/x/", options(USER, GOOD | {"project": PROJECT}, site), site)
    first = 0x60000000 + 3 * 65536
    assert made["userns"] == {"nsmode": "private"}
    for ids in ("UIDMap", "GIDMap"):
        assert made["idmappings"][ids] == [{"container_id": 0, "host_id": first, "size": 65536}]
    (mount,) = made["mounts"]
    assert (mount["source"], mount["destination"]) == (f"/home-of-all/projects/{'f' * 16}/mounted/home", "/home/jovyan")
    assert {"rw", "nosuid", "nodev"} <= set(mount["options"])
    assert made["labels"]["io.binder-onprem.project"] == "f" * 16
    full = environment(options(USER, GOOD | {"project": PROJECT | {"full": True}}, site), site)
    elsewhere = [{name for name, value in told.items() if value.startswith(f"{ELSEWHERE}/")} for told in (made["env"], full)]
    assert elsewhere == [{"JUPYTER_RUNTIME_DIR"}, set(OWN)]
    assert "JUPYTER_RUNTIME_DIR" not in environment(options(USER, GOOD, SITE), SITE)


@pytest.mark.parametrize(
    "change",
    [{"id": "../../../../etc"}, {"slot": -1}, {"slot": 4096}, {"path": "/"}, {"path": "/proc/x"}, {"path": "/a/../.."}, {"x": 1}],
)
def test_a_project_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="hold"):
        options(USER, GOOD | {"project": PROJECT | change}, replace(SITE, projects=Path("/p")))


def test_a_site_without_projects_mounts_none() -> None:
    with pytest.raises(ValueError, match="hold"):
        options(USER, GOOD | {"project": PROJECT}, SITE)


def test_each_session_has_an_address_of_its_own_that_no_link_reaches() -> None:
    assert published("0" * 16) == "127.213.0.1"
    assert published("f" * 16) == str(SESSIONS_LOOPBACK[1 + (2**64 - 1) % 65534])
    found = {published(f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}") for number in range(2000)}
    assert len(found) > 1900
    assert not {str(SESSIONS_LOOPBACK[0]), str(SESSIONS_LOOPBACK[-1])} & found
    assert all(ip_address(one) in SESSIONS_LOOPBACK for one in found)


def test_the_container_is_confined() -> None:
    config = Config(session=Session.model_validate({"memory": "1GiB", "cpus": 1.5, "pids": 99}))
    made = specification("/jupyter/user/x/", options(USER, GOOD, SITE), Confinement.of(config, None))
    assert made["cap_drop"] == ["all"]
    assert made["no_new_privileges"]
    assert not made["privileged"]
    assert made["cgroupns"] == {"nsmode": "private"}
    assert made["idmappings"] == {"AutoUserNs": True, "AutoUserNsOpts": {"Size": 65536}, "HostUIDMapping": False, "HostGIDMapping": False}
    assert made["resource_limits"] == {
        "memory": {"limit": 2**30, "swap": 2**30},
        "cpu": {"period": 100000, "quota": 150000},
        "pids": {"limit": 99},
    }
    assert made["portmappings"] == [{"host_ip": published(LAUNCH), "container_port": 8888, "protocol": "tcp"}]
    assert "mounts" not in made
    assert "volumes" not in made
    assert {limit["type"] for limit in made["r_limits"]} == {"nofile", "nproc"}
    assert made["labels"] == {
        "io.binder-onprem.kind": "session",
        "io.binder-onprem.launch": LAUNCH,
        "io.binder-onprem.image": GOOD["image"],
    }
    json.dumps(made)


def test_the_token_is_in_the_environment_and_not_among_the_arguments() -> None:
    chosen = options(USER, GOOD | {"repo_url": "http://h/x"}, SITE)
    assert environment(chosen, SITE)["JUPYTER_TOKEN"] == TOKEN
    assert environment(chosen, SITE)["BINDER_REPO_URL"] == "http://h/x"
    assert TOKEN not in " ".join(command("/jupyter/user/x/", SITE))
    assert not any(name.startswith("JUPYTERHUB") for name in environment(chosen, SITE))


def test_the_sites_proxy_is_told_only_where_sessions_may_go_out() -> None:
    chosen = options(USER, GOOD, SITE)
    network = Network(proxy="http://proxy:3128", no_proxy=("intern.example",))
    told = environment(chosen, Confinement.of(Config(network=network), None))
    assert told["https_proxy"] == told["HTTP_PROXY"] == "http://proxy:3128"
    assert told["no_proxy"] == "localhost,127.0.0.1,intern.example"
    account = network.model_copy(update={"proxy": "https://name:secret@[2001:db8::1]:3128"})
    assert environment(chosen, Confinement.of(Config(network=account), None))["https_proxy"] == "https://[2001:db8::1]:3128"
    alone = network.model_copy(update={"sessions": "none"})
    assert "https_proxy" not in environment(chosen, Confinement.of(Config(network=alone), None))


def test_another_site_may_use_sessions_only_when_configured() -> None:
    assert not any("allow_origin" in argument for argument in command("/", SITE))
    site = Confinement.of(Config(web=Web(cors_allow_origin="https://docs.example")), None)
    assert "--ServerApp.allow_origin=https://docs.example" in command("/", site)


def run(path: Path, *programs: str) -> tuple[int, str, str]:
    for program in programs:
        file = path / program
        file.write_text('#!/bin/sh\necho "${0##*/}" "$@"\n')
        file.chmod(0o755)
    done = subprocess.run(command("/u/x/", SITE), env={"PATH": str(path)}, capture_output=True, text=True, check=False, timeout=10)
    return done.returncode, done.stdout, done.stderr


def test_what_the_image_has_is_started(tmp_path: Path) -> None:
    code, said, wrong = run(tmp_path)
    assert (code, said) == (127, "")
    assert "no jupyter-lab" in wrong
    _, said, _ = run(tmp_path, "jupyter-notebook")
    assert said.startswith("jupyter-notebook --NotebookApp.ip=0.0.0.0 --NotebookApp.port=8888 ")
    assert "ServerApp" not in said
    assert "--NotebookApp.base_url=/u/x/" in said
    _, said, _ = run(tmp_path, "jupyter-server")
    assert said.startswith("jupyter-server --ServerApp.ip=0.0.0.0 ")
    _, said, _ = run(tmp_path, "jupyter-lab")
    assert said.startswith("jupyter-lab --ServerApp.ip=0.0.0.0 ")
    assert said.count("--") == len(command("/u/x/", SITE)) - 4


def test_a_crowd_that_starts_at_once_has_more_time_and_never_more_than_the_reaper_gives() -> None:
    assert [patience(60, starting, 2) for starting in (1, 4, 8, 10, 30, 1000)] == [60, 60, 120, 150, 150, 150]
    assert patience(60, 30, 64) == 60
    assert MOST < STARTS
