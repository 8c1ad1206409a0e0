from __future__ import annotations

from typing import Any

import pytest

from binder_onprem import config, rates
from binder_onprem.admission import Admission, owner, parsed, subject
from binder_onprem.errors import Banned, InvalidSpec, RateLimited
from binder_onprem.model import Client, LaunchRequest
from binder_onprem.rates import Allowance
from binder_onprem.terms import Terms
from tests.unit.parts import image, repo, request


def policy(sessions: dict[str, Any] | None = None, quota: dict[str, Any] | None = None, **rules: Any) -> Admission:
    return Admission(config.Admission(**rules), config.Session(**(sessions or {})), config.Quota(**(quota or {})))


def test_everything_passes_by_default() -> None:
    for _ in range(1000):
        policy().admit(request(), 0)
    assert policy().allowance(request().client, 0) is None


@pytest.mark.parametrize(
    ("rules", "link", "passes"),
    [
        ({"banned": ["gh/evil/.*"]}, "evil/repo/HEAD", False),
        ({"banned": ["gh/evil/.*"]}, "EVIL/repo/HEAD", False),
        ({"banned": ["gh/evil/.*"]}, "%65vil/repo/HEAD", False),
        ({"banned": ["gh/evil/.*"]}, "good/evil/HEAD", True),
        ({"allowed": ["gh/good/.*"]}, "good/repo/HEAD", True),
        ({"allowed": ["gh/good/.*"]}, "other/repo/HEAD", False),
        ({"allowed": ["gh/.*"], "banned": ["gh/bad"]}, "bad/x/HEAD", False),
    ],
)
def test_patterns(rules: dict[str, Any], link: str, *, passes: bool) -> None:
    if passes:
        policy(**rules).admit(request(link), 0)
        return
    with pytest.raises(Banned, match="not allowed to launch"):
        policy(**rules).admit(request(link), 0)


def test_a_hundred_kilobytes_are_no_link() -> None:
    with pytest.raises(InvalidSpec, match="too long"):
        policy().admit(request("x" * 100_000), 0)


@pytest.mark.parametrize(
    ("address", "banned"),
    [
        ("198.51.100.7", True),
        ("198.51.101.7", False),
        ("::ffff:198.51.100.7", True),
        ("2001:db8::1%eth0", True),
        ("local", False),
        ("nonsense", False),
    ],
)
def test_networks(address: str, *, banned: bool) -> None:
    rules = policy(ban_networks={"198.51.100.0/24": "a scraper", "2001:db8::/32": "documentation"})
    if banned:
        with pytest.raises(Banned, match=r"Requests from (a scraper|documentation) are not allowed\."):
            rules.network(Client(address))
    else:
        rules.network(Client(address))


def test_rate() -> None:
    rules = policy(rate=2, period=100)
    who = request().client
    assert rules.allowance(who, 5) == Allowance(2, 2, 100)
    rules.admit(request(key="1"), 10)
    for _ in range(5):
        rules.admit(request(key="2"), 20)  # one launch, however often it reconnects
    assert rules.allowance(who, 30) == Allowance(2, 0, 80)
    with pytest.raises(RateLimited) as caught:
        rules.admit(request(key="3"), 50)
    assert caught.value.retry_after == 60
    rules.admit(request(key="3", address="192.0.2.2"), 50)
    rules.admit(request(key="3"), 110)
    assert rules.allowance(who, 300) == Allowance(2, 2, 100)


def test_whom_the_rate_counts() -> None:
    assert subject(Client("2001:db8:1:2:3::4")) == subject(Client("2001:db8:1:2:ffff::")) == "2001:db8:1:2::/64"
    assert subject(Client("::ffff:192.0.2.1")) == subject(Client("192.0.2.1")) == "192.0.2.1"
    assert subject(Client("local")) is None
    assert subject(Client("192.0.2.1", trusted=True)) is None
    assert subject(Client("x" * 1000)) == "x" * 64
    assert parsed("local") is None


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "SUBJECTS", 10)
    monkeypatch.setattr(rates, "LAUNCHES_REMEMBERED", 3)
    rules = policy(rate=100)
    for n in range(100):
        rules.admit(request(address=f"192.0.2.{n}"), n)
    assert len(rules._rates._windows) == 10
    for n in range(50):
        rules.admit(request(key=str(n)), 200)
    assert len(rules._rates._windows["192.0.2.1"].launches) == 3
    assert rules._rates._windows["192.0.2.1"].count == 50


def test_a_launch_without_a_window_of_its_own() -> None:
    assert policy(rate=1).allowance(LaunchRequest("gh", "x", Client("local")).client, 0) is None


def test_accounts_have_a_rate_of_their_own_and_tokens_do_not_lift_it() -> None:
    rules = policy(rate=1, rate_per_user=2)
    account = Client("192.0.2.1", "ann", trusted=True)
    for key in "12":
        rules.admit(LaunchRequest("gh", "o/r/HEAD", account, key), 0)
    with pytest.raises(RateLimited):
        rules.admit(LaunchRequest("gh", "o/r/HEAD", account, "3"), 0)
    rules.admit(LaunchRequest("gh", "o/r/HEAD", Client("192.0.2.1", "ben", trusted=True), "4"), 0)
    rules.admit(request(key="5"), 0)
    assert policy(rate=1).allowance(account, 0) is None


def test_what_will_be_left_after_a_launch() -> None:
    rules = policy(rate=2, period=100)
    who = request().client
    assert rules.allowance(who, 0, "x") == Allowance(2, 1, 100)
    rules.admit(request(key="1"), 10)
    assert rules.allowance(who, 20, request(key="1").launch_id) == Allowance(2, 1, 90)
    assert rules.allowance(who, 20, "x") == Allowance(2, 0, 90)
    rules.admit(request(key="2"), 20)
    assert rules.allowance(who, 20, "x") == Allowance(2, -1, 90)
    assert rules.allowance(who, 20, request(key="2").launch_id) == Allowance(2, 0, 90)


def test_a_clock_that_is_set_back_makes_no_window_longer() -> None:
    rules = policy(rate=1, period=100)
    rules.admit(request(key="1"), 5000)
    with pytest.raises(RateLimited) as caught:
        rules.admit(request(key="2"), 1000)
    assert caught.value.retry_after == 100
    rules.admit(request(key="2"), 1100)


def test_quota_of_a_repository() -> None:
    entries = [{"pattern": "gh/owner/.*", "quota": 7}, {"pattern": "gh/owner/big", "quota": 0}, {"pattern": "gh/owner/big", "cpus": 1}]
    rules = policy({"per_repo": 2}, {"per_high_quota_repo": 5}, high_quota=["gh/high/"], specs=entries)
    quota = {name: rules.claim(request(f"{name}/HEAD"), repo(name), image(repo(name))).quota for name in ("a/b", "high/x", "owner/x", "owner/big")}
    assert quota == {"a/b": 2, "high/x": 5, "owner/x": 7, "owner/big": 0}


def test_later_settings_of_a_repository_win_one_by_one() -> None:
    entries = [
        {"pattern": ".*", "memory": "1GiB", "idle": 60, "build_timeout": 5},
        {"pattern": "gh/Owner/", "memory": "3GiB", "age": 90},
        {"pattern": "gl/", "memory": "9GiB"},
    ]
    rules = policy(specs=entries)
    assert rules.terms(request()) == Terms(memory=3 * 1024**3, idle=60, age=90)
    assert rules.terms(request("%6fwner/repo/HEAD")).age == 90
    assert policy().terms(request()) == Terms()


def test_builds_of_a_repository_have_its_own_limits() -> None:
    entries = [
        {"pattern": "gh/", "build_timeout": 5, "build_cpus": 1},
        {"pattern": "gh/Owner/", "build_memory": "16GiB", "build_disk": "60GiB", "build_cpus": 8, "memory": "1GiB"},
    ]
    site = config.Config.model_validate({"admission": {"specs": entries}, "build": {"memory": "2GiB", "pids": 77}})
    large = site.build_of(repo("%6fwner/deep").link)
    assert (large.timeout, large.memory, large.cpus, large.disk, large.pids) == (5, 16 * 1024**3, 8, 60 * 1024**3, 77)
    usual = site.build_of(repo("else/where").link)
    assert (usual.timeout, usual.memory, usual.cpus, usual.disk) == (5, 2 * 1024**3, 1, site.build.disk)
    assert site.build_of("gl/owner/deep/HEAD") == site.build
    with pytest.raises(ValueError, match="build_memory"):
        config.Admission(specs=[{"pattern": "gh/", "build_memory": "1KiB"}])  # type: ignore[list-item]


def test_whose_a_session_is() -> None:
    assert owner(Client("local")) is None
    assert owner(Client("192.0.2.1", trusted=True)) == "192.0.2.1"
    assert owner(Client("192.0.2.1", "ann")) == "user:ann"
    claim = policy().claim(LaunchRequest("gh", "o/r/HEAD", Client("192.0.2.1", groups=frozenset({"x"}))), repo(), image())
    assert claim.groups == frozenset()


@pytest.mark.parametrize("pattern", ["(", "["])
def test_a_setting_whose_pattern_does_not_hold(pattern: str) -> None:
    with pytest.raises(ValueError, match="regular expression"):
        config.Admission(specs=[{"pattern": pattern}])  # type: ignore[list-item]
