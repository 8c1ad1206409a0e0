"""Names are made of content; tokens of what only the client and the site know; a build moves as the table says."""

from __future__ import annotations

import itertools
import re

import pytest

from binder_onprem.model import (
    TRANSITIONS,
    BuildState,
    Client,
    ImageRef,
    LaunchRequest,
    RepoSpec,
    ResolvedRepo,
    Server,
    fingerprint,
    session_name,
    slug,
    temporary,
)

SPEC = RepoSpec("gh", "a/b/HEAD", "https://github.com/a/b", "HEAD", "a-b")
REPO = ResolvedRepo(SPEC, "0" * 40, "a/b/" + "0" * 40, "https://github.com/a/b/tree/" + "0" * 40)


@pytest.mark.parametrize("text", ["a/b", "A__B", "../..", "-x", "é", "", "x" * 500, "a\n\0b", "--", "🙂", "a.b:c@d"])
def test_a_slug_is_safe_in_registries_urls_and_container_names(text: str) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug(text))
    assert len(slug(text)) <= 48


def test_parts_have_borders() -> None:
    assert fingerprint("ab", "c") != fingerprint("a", "bc") != fingerprint("abc")


def test_an_image_is_named_by_repository_commit_and_recipe() -> None:
    image = ImageRef.of(REPO, "127.0.0.1:5/binder", "f" * 64)
    assert re.fullmatch(r"127\.0\.0\.1:5/binder/a-b-[0-9a-f]{12}:0{40}-f{12}", image.name)
    assert image.at("sha256:1") == image.repository + "@sha256:1"
    other = ResolvedRepo(RepoSpec("gh", "x", "https://github.com/a-/b", "HEAD", "a-b"), "0" * 40, "x", "x")
    assert ImageRef.of(other, "127.0.0.1:5/binder", "f" * 64).repository != image.repository
    assert ImageRef.of(REPO, "127.0.0.1:5/binder", "e" * 64).tag != image.tag


def test_a_launch_has_one_public_name_and_one_secret() -> None:
    first, second = (LaunchRequest("gh", "a/b/HEAD", Client("192.0.2.1")) for _ in range(2))
    assert first.launch_id != second.launch_id
    assert first.key not in repr(first)
    assert first.launch_id not in first.key
    again = LaunchRequest("gh", "a/b/HEAD", Client("192.0.2.9"), key=first.key)
    assert again.token(b"s" * 32) == first.token(b"s" * 32) != first.token(b"t" * 32)
    assert first.token(b"s" * 32) != second.token(b"s" * 32)
    assert "TOKEN" not in repr(Server("u", "http://x/", "TOKEN"))


def test_every_pair_of_states_is_decided() -> None:
    allowed = {(a, b) for a, b in itertools.product(BuildState, repeat=2) if b in TRANSITIONS[a]}
    assert set(TRANSITIONS) == set(BuildState)
    assert {state for state in BuildState if state.terminal} == {BuildState.BUILT, BuildState.FAILED, BuildState.CANCELLED}
    assert (BuildState.QUEUED, BuildState.BUILT) not in allowed
    assert all((state, BuildState.CANCELLED) in allowed for state in BuildState if not state.terminal)
    assert len(allowed) == 11


def test_another_account_with_the_same_key_is_another_launch() -> None:
    def launch(user: str | None, key: str = "0" * 32) -> LaunchRequest:
        return LaunchRequest("gh", "o/r/HEAD", Client("192.0.2.1", user), key)

    asked = [launch(None), launch("ada"), launch("bob"), launch(None, "1" * 32)]
    assert len({one.launch_id for one in asked}) == len({one.token(b"s") for one in asked}) == 4
    assert launch("ada").launch_id == launch("ada").launch_id


@pytest.mark.parametrize("name", ["a/b", "2048", "é", "", "x" * 500, "a\n\0b", "--", "3.141-592-653-589"])
def test_a_sessions_name_is_one_of_a_server_at_the_hub(name: str) -> None:
    made = session_name(name, "0123456789abcdef")
    assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*-0123456789abcdef", made)
    assert len(made) <= 30


def test_a_service_owns_no_session() -> None:
    assert Client("192.0.2.1", "service:course", service=True).owner is None
    assert Client("192.0.2.1", "ada").owner == "ada"
    assert Client("192.0.2.1").owner is None


@pytest.mark.parametrize(
    ("name", "own"),
    [
        (session_name("Ümläut / Repository of great length", "0123456789abcdef"), True),
        (session_name("", "0123456789abcdef"), True),
        ("ada", False),
        ("ada-0123456789ABCDEF", False),
        ("ada-0123456789abcdef\n", False),
        ("a" * 25 + "-0123456789abcdef", False),
        ("", False),
    ],
)
def test_temporary_users_are_known_by_their_names(name: str, own: bool) -> None:  # noqa: FBT001
    assert temporary(name) is own
