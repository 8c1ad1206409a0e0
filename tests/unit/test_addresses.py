"""The address rules, by a table of everything that tries to get around them."""
# ruff: noqa: RUF001, S104 - letters that look like others, and addresses that mean all interfaces, are what is tested

import asyncio
import ipaddress
import socket
import time
from collections.abc import Callable

import pytest

from binder_onprem.config import Config
from binder_onprem.egress.addresses import REFUSED, AddressRules, Entry, own_addresses
from binder_onprem.egress.hostnames import canonical, host_and_port
from binder_onprem.errors import AddressRefused, ConfigError, ProviderUnavailable

POOL = "10.213.0.0/16"

PRIVATE_V4 = (
    *(
        "0.0.0.0",
        "0.0.0.1",
        "0.255.255.255",
        "10.0.0.0",
        "10.0.0.1",
        "10.213.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.100.100.200",
        "100.127.255.255",
    ),
    *("127.0.0.1", "127.0.0.2", "127.1.1.1", "127.255.255.255", "169.254.0.1", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255"),
    *("192.0.0.1", "192.0.0.170", "192.0.2.1", "192.88.99.1", "192.168.0.1", "192.168.255.255", "198.18.0.1", "198.19.255.255", "198.51.100.7"),
    *("203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
)
PRIVATE_V6 = (
    *(
        "::",
        "::1",
        "::2",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:7f00:1",
        "::ffff:0:8.8.8.8",
        "64:ff9b::7f00:1",
        "64:ff9b::8.8.8.8",
    ),
    *(
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:0:7f00:1::",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:808:808::1",
    ),
    *("3fff::1", "5f00::1", "fc00::1", "fd00::1", "fdff:ffff::1", "fe80::1", "fec0::1", "ff02::1", "ff0e::1", "fd00:ec2::254", "4000::1", "e000::1"),
)
PUBLIC = (
    "1.1.1.1",
    "8.8.8.8",
    "9.9.9.9",
    "140.82.121.4",
    "172.15.255.255",
    "172.32.0.1",
    "192.167.1.1",
    "11.0.0.1",
    "100.63.255.255",
    "223.255.255.254",
)
PUBLIC_V6 = ("2606:4700::1111", "2a00:1450:4001::1", "2620:fe::fe", "2001:4860:4860::8888", "2400:cb00::1")
ODD = (
    *(
        "0x7f.1",
        "0x7f.0.0.1",
        "0x7f000001",
        "0X7F000001",
        "2130706433",
        "017700000001",
        "0177.0.0.1",
        "127.1",
        "127.0.1",
        "127.0.0.01",
        "127.0.0.1.1",
    ),
    *("127.0.0.256", "1.2.3", "1.2.3.0x4", "0", "00", "0x", "0x0", "1", "4294967295", "4294967296", "99999999999999999999", "127.0.0.1..", "..", "."),
    *(
        "",
        "a..b",
        ".a",
        "-a.example.org",
        "a-.example.org",
        "a b.example.org",
        "a\tb",
        "a\nb.org",
        "a\0b.org",
        "a/b",
        "a\\b",
        "a@b",
        "a:b",
        "a?b",
        "a#b",
    ),
    *("[::1", "::1]", "[::1]x", "[]", "[", ":", "::1%lo", "fe80::1%eth0", "[fe80::1%25eth0]", ":::1", "1::2::3", "12345::", "::g", "[127.0.0.1]"),
    *(
        "a" * 64 + ".org",
        "a." * 130 + "org",
        "x" * 254,
        "%31%32%37.0.0.1",
        "127.0.0.1%00",
        "127.0.0.1 ",
        " 127.0.0.1",
        "127.0.0.1\r\n",
        "exa$mple.org",
    ),
    *(
        "example.123",
        "example.0x7f",
        "*.example.org",
        "a,b",
        "(a)",
        "a;b",
        "'a'",
        "a`b",
        "a|b",
        "a&b",
        "{a}",
        "<a>",
        "a+b.org",
        "ex\u200bample.org\u202e",
        "\u202egro",
    ),
    *("①②⑦.0.0.①x y", "⒈", "a。。b", "xn--\u00e9", "\ud800", "example.org:80", "//a", "a%2eb", "a~b", "!a", "^", "=", "\u2060", "\ufeff"),
)
LOCAL = (
    "localhost",
    "LOCALHOST",
    "localhost.",
    "LocalHost.",
    "foo.localhost",
    "intranet",
    "printer.local",
    "metadata.google.internal",
    "gitlab.corp",
    "nas.home.arpa",
)
SAME = {
    "EXAMPLE.org.": "example.org",
    "１２７.０.０.１": "127.0.0.1",
    "127。0。0。1": "127.0.0.1",
    "[::1]": "::1",
    "::FFFF:127.0.0.1": "::ffff:7f00:1",
    "0:0:0:0:0:0:0:1": "::1",
    "université.example": "xn--universit-j4a.example",
    "ⅇxample.org": "example.org",
    "аpple.com": "xn--pple-43d.com",
}
NUMBERS = tuple(
    form
    for number in (int(ipaddress.IPv4Address(address)) for address in PRIVATE_V4[1:])
    for form in (
        str(number),
        hex(number),
        f"0{number:o}",
        f"{number >> 24}.{number & 0xFFFFFF}",
        ".".join(f"0{number >> shift & 255:03o}" for shift in (24, 16, 8, 0)),
    )
    if form not in PRIVATE_V4
)
REFUSED_BY_DEFAULT = (*PRIVATE_V4, *PRIVATE_V6, *ODD, *NUMBERS, "１２７.０.０.１", "127。0。0。1", "[::1]", "0:0:0:0:0:0:0:1", "127.0.0.1.")


def answering(*answers: str) -> Callable[[str, int], list[str]]:
    return lambda _host, _port: list(answers)


def rules(*allow: str, ports: tuple[int, ...] = (), answers: tuple[str, ...] = (), own: tuple[str, ...] = ()) -> AddressRules:
    return AddressRules(allow, POOL, frozenset(ports), query=answering(*answers), own=lambda: {ipaddress.ip_address(text) for text in own})


def test_the_table_is_large() -> None:
    assert len({*REFUSED_BY_DEFAULT, *LOCAL, *SAME}) >= 200


@pytest.mark.parametrize("host", REFUSED_BY_DEFAULT)
async def test_refused_in_the_same_words(host: str) -> None:
    def never(_host: str, _port: int) -> list[str]:
        raise AssertionError(f"{host} must not be looked up")

    with pytest.raises(AddressRefused) as caught:
        await AddressRules((), POOL, query=never).lookup(host, 80)
    assert caught.value.message == REFUSED


@pytest.mark.parametrize("host", [*REFUSED_BY_DEFAULT, *LOCAL])
def test_refused_without_a_lookup_before_a_proxy(host: str) -> None:
    with pytest.raises(AddressRefused):
        rules().check_name(host, 443)


@pytest.mark.parametrize("address", [*PUBLIC, *PUBLIC_V6])
async def test_public_addresses_pass(address: str) -> None:
    assert await rules().lookup(address, 443) == [address]
    assert rules().allowed(address)
    rules().check_name(address, 443)


@pytest.mark.parametrize(("host", "expected"), SAME.items())
def test_one_way_to_write_a_host(host: str, expected: str) -> None:
    assert canonical(host) == expected


@pytest.mark.parametrize("answer", [*PRIVATE_V4, *PRIVATE_V6])
async def test_names_that_lead_inside_are_refused(answer: str) -> None:
    with pytest.raises(AddressRefused, match="not one that this site connects to"):
        await rules(answers=(answer,)).lookup("evil.example", 80)


async def test_every_address_of_an_answer_is_checked() -> None:
    assert await rules(answers=("127.0.0.1", "8.8.8.8", "10.0.0.1", "8.8.8.8", "::1", "fe80::1%2")).lookup("mixed.example", 80) == ["8.8.8.8"]


async def test_ports_of_public_hosts() -> None:
    for port in (22, 80, 443, 9418):
        assert await rules().lookup("8.8.8.8", port)
    for port in (1, 25, 3306, 6379, 8443, 65535):
        with pytest.raises(AddressRefused):
            await rules().lookup("8.8.8.8", port)
    assert await rules("git.example:8443", answers=("8.8.8.8",)).lookup("git.example", 8443)


@pytest.mark.parametrize(
    ("entry", "host", "port", "answer", "passes"),
    [
        ("10.1.0.0/16", "git.inside", 3000, "10.1.2.3", True),
        ("10.1.0.0/16", "git.inside", 80, "10.2.2.3", False),
        ("10.1.2.3", "10.1.2.3", 80, "", True),
        ("10.1.2.3:8080", "10.1.2.3", 8080, "", True),
        ("10.1.2.3:8080", "10.1.2.3", 80, "", False),
        ("git.inside", "GIT.inside.", 80, "192.168.1.1", True),
        ("git.inside", "x.git.inside", 80, "192.168.1.1", False),
        ("git.inside:8443", "git.inside", 8443, "192.168.1.1", True),
        ("git.inside:8443", "git.inside", 443, "192.168.1.1", False),
        ("*.inside", "a.b.inside", 80, "fd00::1", True),
        ("*.inside", "inside", 80, "fd00::1", False),
        ("*.inside", "notinside", 80, "fd00::1", False),
        ("127.0.0.0/8", "127.0.0.1", 9000, "", True),
        ("127.0.0.0/8", "localhost", 9000, "127.0.0.1", True),
        ("127.0.0.0/8", "localhost", 9000, "::1", False),
        ("0.0.0.0/0", "127.0.0.1", 9000, "", False),
        ("0.0.0.0/0", "10.213.1.1", 80, "", False),
        ("10.0.0.0/8", "10.213.1.1", 80, "", False),
        ("10.213.1.0/24", "10.213.1.1", 80, "", True),
        ("10.0.0.0/8", "10.7.7.7", 80, "", False),
        ("10.7.7.7", "10.7.7.7", 80, "", True),
        ("[fd00::5]:80", "fd00::5", 80, "", True),
        ("fd00::/64", "fd00::5", 4000, "", True),
        ("224.0.0.0/4", "224.0.0.1", 80, "", False),
    ],
)
async def test_what_the_administrator_names(entry: str, host: str, port: int, answer: str, passes: bool) -> None:  # noqa: FBT001
    subject = rules(entry, answers=(answer,), own=("10.7.7.7",))
    if passes:
        assert await subject.lookup(host, port)
    else:
        with pytest.raises(AddressRefused):
            await subject.lookup(host, port)


async def test_our_own_parts_stay_closed_whatever_is_allowed() -> None:
    subject = rules("127.0.0.0/8", "::1", "10.213.0.0/16", "host.inside", ports=(8586,), answers=("127.0.0.1",), own=("8.8.4.4",))
    assert await subject.lookup("127.0.0.1", 8590)
    for host in ("127.0.0.1", "127.9.9.9", "::1", "10.213.0.1", "host.inside", "localhost", "8.8.4.4"):
        with pytest.raises(AddressRefused):
            await subject.lookup(host, 8586)
        with pytest.raises(AddressRefused):
            await subject.lookup(host, 8586, trusted=True)


async def test_mirrors_may_be_anywhere_else() -> None:
    assert await rules(answers=("203.0.113.7",)).lookup("mirror.inside", 3141, trusted=True) == ["203.0.113.7"]


async def test_this_machines_own_public_address_is_not_public() -> None:
    with pytest.raises(AddressRefused):
        await rules(own=("8.8.8.8",)).lookup("8.8.8.8", 80)


async def test_a_name_server_that_hangs_is_given_up_and_blocks_nobody() -> None:
    def slow(_host: str, _port: int) -> list[str]:
        time.sleep(0.3)
        return ["8.8.8.8"]

    subject = AddressRules((), POOL, query=slow, timeout=0.05)
    started = asyncio.get_running_loop().time()
    with pytest.raises(ProviderUnavailable, match="could not be looked up"):
        await subject.lookup("slow.example", 80)
    assert asyncio.get_running_loop().time() - started < 0.25


@pytest.mark.parametrize(
    ("number", "error"), [(socket.EAI_AGAIN, ProviderUnavailable), (socket.EAI_NONAME, AddressRefused), (socket.EAI_FAIL, AddressRefused)]
)
async def test_answers_of_the_resolver(number: int, error: type[Exception]) -> None:
    def fail(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(number, "words of the resolver")

    with pytest.raises(error) as caught:
        await AddressRules((), POOL, query=fail).lookup("nowhere.example", 80)
    assert "words of the resolver" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "a b", "host:0", "host:70000", "http://x", "*.", "10.0.0.1/8"])
def test_entries_that_do_not_hold(text: str) -> None:
    with pytest.raises(ConfigError, match=r"network\.allow"):
        Entry.read(text)


async def test_a_configured_gitlab_is_allowed_and_our_ports_are_not() -> None:
    config = Config.model_validate({"providers": [{"kind": "gitlab", "url": "https://gitlab.inside:8443"}], "network": {"allow": ["127.0.0.0/8"]}})
    subject = AddressRules.of(config)
    subject.check_name("gitlab.inside", 8443)
    with pytest.raises(AddressRefused):
        subject.check_name("gitlab.inside", 8444)
    for port in (8585, 8586, 8587, 8588, 8589, 8591):
        with pytest.raises(AddressRefused):
            await subject.lookup("127.0.0.1", port)
    assert await subject.lookup("127.0.0.1", config.samples_port) == ["127.0.0.1"]


@pytest.mark.parametrize("url", ["ftp://x", "x", "", "http://", "http://0x7f.1/"])
def test_urls_that_do_not_hold(url: str) -> None:
    with pytest.raises(ConfigError):
        host_and_port(url)


def test_this_machine_knows_its_addresses() -> None:
    assert "127.0.0.1" in {str(address) for address in own_addresses()}


@pytest.mark.parametrize("entry", ["127.0.0.0/8", "0.0.0.0/0", "127.213.0.0/16", "127.213.0.1", "127.213.0.1:33333", "sessions.example.org", "::/0"])
@pytest.mark.parametrize("answer", ["127.213.0.1", "127.213.255.254", "::ffff:127.213.0.1"])
async def test_sessions_published_ports_are_never_reached_whatever_is_allowed(entry: str, answer: str) -> None:
    rules = AddressRules([entry], POOL, query=lambda _host, _port: [answer])
    assert not rules.allowed(answer)
    assert not rules.allowed(answer, 33333)
    for host in (answer, "sessions.example.org"):
        for trusted in (False, True):
            with pytest.raises(AddressRefused) as error:
                await rules.lookup(host, 33333, trusted=trusted)
            assert error.value.message == REFUSED
    with pytest.raises(AddressRefused):
        rules.check_name(answer, 33333)


def test_sessions_are_published_where_the_rules_refuse() -> None:
    assert not AddressRules.of(Config.model_validate({"network": {"allow": ["127.0.0.0/8"]}})).allowed(Config().session_address, 80)
    assert AddressRules.of(Config.model_validate({"network": {"allow": ["127.0.0.0/8"]}})).allowed("127.0.0.1", 80)
