"""What a session and a build can reach, tried from inside; and that they hold no secret but the session's own token."""

from __future__ import annotations

import ast
import json
import socket
import threading
from contextlib import closing, contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING

import aiohttp
import pytest
from yarl import URL

from binder_onprem.config import SESSIONS_LOOPBACK
from binder_onprem.egress.addresses import REFUSED
from tests.e2e.kernel import kernel
from tests.e2e.stand import git_spec, launch, ready

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Origin
    from tests.e2e.stand import Stand

pytestmark = pytest.mark.real

PROBE = """
import socket
def reach(host, port):
    try:
        with socket.create_connection((host, port), timeout=1.5):
            return "OPEN"
    except OSError:
        return "closed"
gateway = [line.split() for line in open("/proc/net/route")][1:]
gateway = next((socket.inet_ntoa(bytes.fromhex(row[2])[::-1]) for row in gateway if row[1] == "00000000"), None)
targets = [tuple(target) for target in TARGETS]
targets += [(gateway, port) for _, port in TARGETS] if gateway else []
print([(*target, socket.gethostbyname(target[0])) for target in targets if target[0] and reach(*target) == "OPEN"])
"""


class Listener:
    """Counts who connects."""

    def __init__(self, address: str) -> None:
        self.socket = socket.create_server((address, 0))
        self.port = self.socket.getsockname()[1]
        self.count = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.count += 1
            connection.close()


SECRETS = """
import os, glob
print(dict(os.environ), open('/proc/mounts').read())
for file in glob.glob('/proc/[0-9]*/environ'):
    print(open(file).read())
"""

FORK_BOMB = """
import subprocess
children = []
try:
    for _ in range(2000):
        children.append(subprocess.Popen(['sleep', '30']))
    print('no limit')
except OSError:
    print('stopped at', len(children))
finally:
    [child.kill() for child in children]
    [child.wait() for child in children]
"""


@contextmanager
def listening() -> Iterator[Listener]:
    listener = Listener("0.0.0.0")  # noqa: S104 - the host's services listen so, ssh for one
    with closing(listener.socket):
        yield listener


def own_addresses() -> list[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing
        return [probe.getsockname()[0], "127.0.0.1"]


def targets(stand: Stand, listener: Listener) -> list[tuple[str, int]]:
    parts = [stand.port + offset for offset in range(7)] + [listener.port]
    gate = ".".join(stand.settings["network"]["pool"].split(".")[:2]) + ".255.254"
    hosts = [*own_addresses(), "host.containers.internal", gate]
    return [(host, port) for host in hosts for port in parts] + [("169.254.169.254", 80)]


async def test_a_session_reaches_nothing_of_ours(stand: Stand, origin: Origin) -> None:
    first, second = await ready(stand, origin.spec("bare")), await ready(stand, origin.spec("bare"))
    names = json.loads(stand.podman("ps", "--format", "json", "--filter", "label=io.binder-onprem.kind=session"))
    found = [json.loads(stand.podman("inspect", row["Id"]))[0] for row in names]
    others = [net["IPAddress"] for one in found for net in one["NetworkSettings"]["Networks"].values()]
    published = [(one[0]["HostIp"], int(one[0]["HostPort"])) for row in found for one in row["NetworkSettings"]["Ports"].values()]
    with listening() as listener:
        tried = targets(stand, listener) + [(address, 8888) for address in others] + published
        async with kernel(first) as inside:
            mine = (await inside.run("import socket; print(socket.gethostbyname(socket.gethostname()))")).strip()
            tried = [target for target in tried if target != (mine, 8888)]
            assert await inside.run(f"TARGETS = {tried!r}\n" + PROBE, seconds=180) == "[]\n"
        assert listener.count == 0
    async with kernel(second) as inside:
        assert (await inside.run("print(6 * 7)")).strip() == "42"


async def test_no_link_and_no_build_reaches_a_session(stand: Stand, origin: Origin) -> None:
    """Although this stand allows the whole of 127.0.0.0/8."""
    end = await ready(stand, origin.spec("bare"))
    rows = json.loads(stand.podman("ps", "--format", "json", "--filter", "label=io.binder-onprem.kind=session"))
    ports = [(port["host_ip"], port["host_port"]) for row in rows for port in row["Ports"]]
    assert all(ip_address(address) in SESSIONS_LOOPBACK for address, _ in ports)
    assert len({address for address, _ in ports}) == len(ports) > 0
    urls = [f"http://{address}:{port}{URL(end['url']).path}api" for address, port in ports]
    async with aiohttp.ClientSession() as session:
        statuses = []
        for url in urls:
            async with session.get(url) as answer:
                statuses.append(answer.status)
    assert 200 in statuses, "from this machine itself it is reached, or the refusals would show nothing"
    for url in urls:
        failed, _ = await launch(stand, git_spec(url))
        assert failed["message"].strip() == REFUSED
    script = "#!/bin/sh\n" + "".join(f"curl -s -m 5 -o /dev/null -w 'answer %{{http_code}}\\n' {url}\n" for url in urls) + "echo asked\n"
    origin.make("asks", {"postBuild": script})
    end, before = await launch(stand, origin.spec("asks"))
    log = "".join(event["message"] for event in before)
    assert end["phase"] == "ready", log[-2000:]
    assert "asked" in log
    assert log.count("answer 403") == len(urls)


async def test_a_session_holds_its_own_token_and_no_other_secret(stand: Stand, origin: Origin) -> None:
    end = await ready(stand, origin.spec("bare"))
    secrets = [path.read_text().strip() for path in (stand.home / "secrets").iterdir() if path.is_file()]
    secrets = [secret for text in secrets for secret in (text, text.rpartition(":")[2])]
    assert len(secrets) >= 5
    async with kernel(end) as inside:
        seen = await inside.run(SECRETS)
        assert end["token"] in seen
        assert "JUPYTERHUB_API_TOKEN" not in seen
        status = await inside.run("print(open('/proc/self/status').read())")
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        assert "CapBnd:\t0000000000000000" in status
        uids = await inside.run("print(open('/proc/self/uid_map').read().split())")
        assert int(uids.split("'")[3]) >= 100_000
    inspected = stand.podman("inspect", *stand.podman("ps", "-q").split())
    for text in (seen, inspected):
        assert not [secret for secret in secrets if secret in text]


async def test_a_session_is_limited(stand: Stand, origin: Origin) -> None:
    async with kernel(await ready(stand, origin.spec("bare"))) as inside:
        assert "stopped" in await inside.run(FORK_BOMB)


async def test_a_build_reaches_nothing_of_ours(stand: Stand, origin: Origin) -> None:
    with listening() as listener:
        tried = targets(stand, listener)
        script = f"#!/usr/bin/env python3\nTARGETS = {tried!r}\n{PROBE}\nimport os, glob\nprint('ENV', dict(os.environ))\n"
        origin.make("probe", {"postBuild": script})
        origin.repositories["probe"].git("update-index", "--chmod=+x", "postBuild")
        origin.repositories["probe"].git("commit", "--quiet", "--message=x")
        end, before = await launch(stand, origin.spec("probe"))
        assert end["phase"] == "ready", before[-5:]
        log = "".join(event["message"] for event in before)
        assert "[]\n" in log
        script = f"TARGETS = {tried!r}\n{PROBE}"
        text = "FROM binder-onprem/base\nCOPY probe.py /tmp/probe.py\nRUN python3 /tmp/probe.py\n"
        origin.make("dockerprobe", {"Dockerfile": text, "probe.py": script})
        end, before = await launch(stand, origin.spec("dockerprobe"))
        log = "".join(event["message"] for event in before)
        assert end["phase"] == "ready", log[-2000:]
        gate = next(host for host, _ in tried if host.endswith(".255.254"))
        opened = ast.literal_eval(next(line for line in log.splitlines() if line.startswith("[")))
        # Nothing but the gate's own port, by whichever name; on a busy machine that, too, may answer too late for the probe.
        assert {(address, port) for _, port, address in opened} <= {(gate, stand.port + 6)}, opened
        assert listener.count == 0
        secrets = [path.read_text().strip() for path in (stand.home / "secrets").iterdir() if path.is_file()]
        assert not [secret for secret in secrets if secret in log]


async def test_the_hub_shows_strangers_nothing(stand: Stand) -> None:
    async with aiohttp.ClientSession() as session:
        for path in (
            "jupyter/hub/api",
            "jupyter/hub/api/users",
            "jupyter/hub/login",
            "jupyter/hub/metrics",
            "jupyter/hub/admin",
            "jupyter/",
            "api/sessions",
            "api/images",
        ):
            async with session.get(stand.url + path, allow_redirects=False) as answer:
                assert answer.status in (401, 403, 404), (path, answer.status)
