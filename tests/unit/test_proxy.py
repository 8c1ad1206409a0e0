"""The site's proxy: URLs that every client reads alike, what is reached without it in all clients' forms, and what preflight says of hosts."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import proxy_bypass_environment

import jinja2
import pytest
from ansible.errors import AnsibleFilterError

from binder_onprem.egress.outbound import bypasses
from tests.unit.plugins import PLAYBOOKS, plugin

if TYPE_CHECKING:
    from collections.abc import Iterator

rules, look = plugin("filter_plugins/binder_proxy.py"), plugin("library/binder_host.py")
ACCOUNT = "http://name:pass%40word@proxy.uni.example:3128"


@pytest.mark.parametrize("url", ["", "http://proxy:3128", "https://proxy.uni.example:443/", ACCOUNT, "http://[2001:db8::1]:3128"])
def test_urls_that_all_clients_read(url: str) -> None:
    assert rules.binder_proxy_fault(url) == ""


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("proxy:3128", "no URL"),
        ("socks5://proxy:1080", "no URL"),
        ("http://proxy:3128/path", "no URL"),
        ("http://proxy:port", "no URL"),
        ("http://proxy", "port"),
        ("http://name:it's@proxy:3128", "%XX"),
        ("http://name:$(id)@proxy:3128", "%XX"),
        ('http://name:"@proxy:3128', "%XX"),
        ("http://name:a b@proxy:3128", "%XX"),
        ("http://name:a\\b@proxy:3128", "%XX"),
    ],
)
def test_urls_that_some_client_reads_otherwise_are_told_without_their_account(url: str, said: str) -> None:
    fault = rules.binder_proxy_fault(url)
    assert said in fault
    assert "name" not in fault.replace("no URL such as http://proxy.uni.example:3128", "")


def test_what_is_reached_without_it_has_each_form_once_and_in_order() -> None:
    found = rules.binder_no_proxy(
        ["Registry.uni.example", "", "10.42.0.0/16,fd00:42::/56", "192.0.2.7", "registry.uni.example"], ["*.intern.example"]
    )
    assert found == [
        "localhost", "127.0.0.1", "127.0.0.0/8", "::1", "[::1]",
        "registry.uni.example", "10.42.0.0/16", "fd00:42::/56", "192.0.2.7",
        ".svc", ".cluster.local", ".intern.example",
    ]  # fmt: skip
    assert rules.binder_no_proxy([], "a.example, 10.0.0.0/8") == rules.binder_no_proxy([], ["a.example", "10.0.0.0/8"])
    assert not any(set(entry) & set(" ,*") for entry in found)


def test_small_networks_are_spelled_out_for_who_reads_no_network() -> None:
    assert rules.binder_no_proxy([], ["192.0.2.8/30"])[-5:] == ["192.0.2.8/30", "192.0.2.8", "192.0.2.9", "192.0.2.10", "192.0.2.11"]
    assert rules.binder_no_proxy([], ["192.0.2.9/32"])[-2:] == [".cluster.local", "192.0.2.9"]
    assert rules.binder_no_proxy([], ["2001:DB8::1"])[-2:] == ["2001:db8::1", "[2001:db8::1]"]
    assert rules.binder_no_proxy([], ["10.0.0.0/8"])[-1] == "10.0.0.0/8"


@pytest.mark.parametrize("entry", ["http://a.example", "10.0.0.5/8", "10.0.0", "*", "a/b", "a_;b", "300.1.1.1"])
def test_what_is_no_exception_is_named(entry: str) -> None:
    with pytest.raises(AnsibleFilterError, match="site_proxy_no"):
        rules.binder_no_proxy([], [entry])


def test_clients_go_past_the_proxy_to_what_is_the_sites_own() -> None:
    direct = rules.binder_no_proxy(["registry.uni.example", "10.42.0.0/16", "192.0.2.7"], ["*.intern.example", "mirror.uni.example:8443"])
    for host in ("registry.uni.example", "localhost", "192.0.2.7", "git.intern.example", "api.default.svc"):
        # Python's own rule is that of requests, pip and aiohttp; ours reads networks, too.
        assert proxy_bypass_environment(f"{host}:443", {"no": ",".join(direct)}), host
        assert bypasses(host, 443, direct), host
    assert bypasses("10.42.3.4", 8888, direct)
    assert bypasses("::1", 443, direct)
    for host in ("github.com", "registry.uni.example.org", "8.8.8.8"):
        assert not proxy_bypass_environment(f"{host}:443", {"no": ",".join(direct)}), host
        assert not bypasses(host, 443, direct), host


def test_apt_is_told_of_names_and_addresses() -> None:
    direct = rules.binder_no_proxy(["registry.uni.example", "10.42.0.0/16", "192.0.2.7"], [".intern.example", "mirror:8443"])
    assert rules.binder_apt_direct(direct) == ["localhost", "127.0.0.1", "registry.uni.example", "192.0.2.7"]


def test_shell_and_systemd_read_the_file_of_the_environment_alike() -> None:
    text = (PLAYBOOKS / "roles/proxy/templates/environment.j2").read_text()
    made = jinja2.Environment(autoescape=False, trim_blocks=True).from_string(text).render(site_proxy=ACCOUNT, site_direct=["::1", ".svc"])  # noqa: S701 - no HTML
    pairs = dict(line.split("=", 1) for line in made.splitlines() if not line.startswith("#"))
    assert pairs == {
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), f"'{ACCOUNT}'"),
        **dict.fromkeys(("no_proxy", "NO_PROXY"), "'::1,.svc'"),
    }


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", False),
        ("http_proxy=http://p:1", False),
        ('https_proxy="http://p:1"', True),
        ("export HTTPS_PROXY=http://p:1\nno_proxy=other.example", True),
        ("ALL_PROXY=http://p:1", True),
        ("HTTPS_PROXY=http://p:1\nNO_PROXY='localhost,registry.uni.example'", False),
        ("HTTPS_PROXY=http://p:1\nno_proxy=.uni.example", False),
        ("HTTPS_PROXY=http://p:1\nno_proxy=*", False),
    ],
)
def test_a_hosts_own_settings_that_send_the_registry_to_a_proxy_are_seen(text: str, wrong: bool) -> None:  # noqa: FBT001 - a column
    assert look.through_proxy(text, "registry.uni.example:5000") is wrong


@pytest.fixture
def said() -> Iterator[dict[str, bytes]]:
    """A server that keeps what it is asked and answers `answer`."""
    talk = {"answer": b"HTTP/1.1 503 Service Unavailable\r\n\r\n"}
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                talk["asked"] = peer.recv(4096)
                peer.sendall(talk["answer"])

        thread = threading.Thread(target=serve)
        thread.start()
        talk["port"] = str(server.getsockname()[1]).encode()
        yield talk
        thread.join(5)


@pytest.mark.parametrize(
    ("answer", "state"), [(b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "answers"), (b"HTTP/1.0 407 No\r\n\r\n", "refuses"), (b"SSH-2.0-x\r\n", "silent")]
)
def test_a_proxy_is_asked_for_what_nobody_has(said: dict[str, bytes], answer: bytes, state: str) -> None:
    said["answer"] = answer
    told = look.proxy(f"http://name:pass%40word@127.0.0.1:{said['port'].decode()}")
    assert told["state"] == state
    assert b"Basic bmFtZTpwYXNzQHdvcmQ=" in said["asked"]
    assert b"GET http://binder-onprem.invalid/" in said["asked"]
    assert "pass" not in str(told)


def test_a_proxy_that_is_not_there_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert look.proxy(f"http://127.0.0.1:{port}")["state"] == "silent"
    assert look.proxy("") == {}


def test_no_task_puts_the_proxy_on_a_command_line_or_into_a_log() -> None:
    for file in sorted(PLAYBOOKS.glob("roles/*/tasks/*.yml")):
        for task in Path(file).read_text(encoding="utf-8").split("\n- name: ")[1:]:
            uses = [line for line in task.splitlines() if "{{ site_proxy }}" in line and "binder_proxy_fault" not in line]
            assert not uses or "no_log: true" in task or "binder_host:" in task, (file, task)
