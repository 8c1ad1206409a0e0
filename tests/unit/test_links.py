"""What links are taken for, and 3,000 that are none."""

import random
import string
import time
from typing import Any, cast

import pytest

from binder_onprem.config import GitHubProvider, GitLabProvider, GitProvider
from binder_onprem.errors import InvalidSpec
from binder_onprem.interfaces import Provider
from binder_onprem.model import RepoSpec
from binder_onprem.providers.git import Git
from binder_onprem.providers.github import GitHub
from binder_onprem.providers.gitlab import GitLab
from binder_onprem.providers.links import escaped

NOBODY = cast("Any", None)
GIT = Git(GitProvider(), NOBODY, NOBODY, 1)
GH = GitHub(GitHubProvider(), NOBODY)
GL = GitLab(GitLabProvider(), NOBODY)
SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("provider", "path", "url", "ref", "slug"),
    [
        (GIT, "https%3A%2F%2Fgit.example.org%2Fa%2Fb.git/main", "https://git.example.org/a/b.git", "main", "a-b"),
        (GIT, "https%3A%2F%2FGIT.example.org.%3A443%2Fa%2Fb%2F/feature/x/y", "https://git.example.org/a/b", "feature/x/y", "a-b"),
        (GIT, "http%3A%2F%2F127.0.0.1%3A8590%2Fsample.git/HEAD/", "http://127.0.0.1:8590/sample.git", "HEAD", "sample"),
        (GIT, "http%3A%2F%2F%5B%3A%3A1%5D%3A80%2Fa/v1.0", "http://[::1]/a", "v1.0", "a"),
        (GIT, f"git%3A%2F%2Fhost.org%3A9419%2F~u%2Fr/{SHA.upper()}", "git://host.org:9419/~u/r", SHA, "u-r"),
        (GIT, "git%40host.org%3Agroup%2Frepo.git/tag%2F1", "ssh://git@host.org/group/repo.git", "tag/1", "group-repo"),
        (GIT, "ssh%3A%2F%2Fhost.org%3A22%2Frepo/HEAD", "ssh://git@host.org/repo", "HEAD", "repo"),
        (GIT, "ssh%3A%2F%2Fgit%40host.org%2Frepo/d%C3%A9veloppement", "ssh://git@host.org/repo", "développement", "repo"),
        (GH, "user/repo/feature/x", "https://github.com/user/repo", "feature/x", "user-repo"),
        (GH, "user/repo.git/HEAD", "https://github.com/user/repo", "HEAD", "user-repo"),
        (GH, "user/.github/refs%2Fheads%2Fmain", "https://github.com/user/.github", "refs/heads/main", "user-github"),
        (GL, "group%2Fsub%2Fproject/main", "https://gitlab.com/group/sub/project.git", "main", "group-sub-project"),
        (GL, "group%2Fproject.git/a/b", "https://gitlab.com/group/project.git", "a/b", "group-project"),
    ],
)
def test_links(provider: Provider, path: str, url: str, ref: str, slug: str) -> None:
    spec = provider.parse(path)
    assert (spec.url, spec.ref, spec.slug, spec.path) == (url, ref, slug, path.rstrip("/"))


@pytest.mark.parametrize(
    ("provider", "path", "words"),
    [
        (GH, "a/b", 'Spec is not of the form "user/repo/ref", provided: "a/b". Did you mean "a/b/HEAD"?'),
        (GH, "a/main", 'Spec is not of the form "user/repo/ref", provided: "a/main".'),
        (GH, "a", 'Spec is not of the form "user/repo/ref", provided: "a".'),
        (GH, "a//HEAD", 'Spec is not of the form "user/repo/ref", provided: "a//HEAD".'),
        (GL, "g/p/main", 'Spec is not of the form "<escaped namespace>/<ref>", provided: "g/p/main". Did you mean "g%2Fp/main"?'),
        (GIT, "https%3A%2F%2Fh.org%2Fa", "/HEAD"),
        (GIT, "https://h.org/a/b/main", 'Did you mean "https%3A%2F%2Fh.org%2Fa%2Fb%2Fmain/HEAD"?'),
        (GIT, "ext%3A%3Ash/HEAD", "must begin with one of https://, http://, ssh://, git://"),
        (GIT, "https%3A%2F%2Fuser%3Ahunter2%40h.org%2Fa/HEAD", "do not belong in a link"),
    ],
)
def test_what_is_said(provider: Provider, path: str, words: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        provider.parse(path)
    assert words in caught.value.message
    assert "hunter2" not in caught.value.message


URLS = (
    *(
        "ext::sh -c id",
        "ext::sh",
        "file:///etc",
        "/etc",
        "etc",
        "../x",
        "-oProxyCommand=id",
        "--upload-pack=id",
        "ssh://-oProxyCommand=id/x",
        "fd::17/x",
    ),
    *(
        "ssh://-u@host/x",
        "ssh://u:p@host/x",
        "https://h.org/../../etc",
        "https://h.org/%2e%2e/x",
        "https://h.org/%252e%252e/x",
        "https://h.org/a/../b",
    ),
    *(
        "https://h.org/-a",
        "https://h.org/a/-b",
        "https://h.org",
        "https://h.org/",
        "https:///a",
        "https://",
        "https://h.org:0/a",
        "https://h.org:99999/a",
    ),
    *(
        "https://h.org:x/a",
        "https://h.org/a?x=1",
        "https://h.org/a#b",
        "https://h org/a",
        "https://h.org/a\0b",
        "https://h.org/a\nb",
        "https://h.org/a\rb",
    ),
    *(
        "https://0x7f.1/a",
        "https://127.1/a",
        "https://2130706433/a",
        "https://[fe80::1%25lo]/a",
        "https://[::1/a",
        "HTTPS2://h/a",
        "ftp://h.org/a",
        "javascript:x",
    ),
    *(
        "https://h.org/a;id",
        "https://h.org/$(id)",
        "https://h.org/`id`",
        "https://h.org/a|b",
        "https://h.org/<b>",
        "https://h.org/\u202egit.exe",
        "git@host:/x",
    ),
    *(
        "git@-host:x",
        "-git@host:x",
        "a@b@c:x",
        "https://user@h.org/a",
        "https://h.org\\@evil.org/a",
        "https://h.org/a\\b",
        "transport::addr",
        "ext://x/y",
        "https:h.org/a",
    ),
)
REFS = (
    *(
        "-x",
        "--upload-pack=id",
        "@{-1}",
        "@",
        "a..b",
        "refs/../..",
        "../x",
        ".x",
        "x.lock",
        "x/.y",
        "a b",
        "a~1",
        "a^",
        "a:b",
        "a?b",
        "a*b",
        "a[b",
        "a\\b",
    ),
    *("a\0", "a\n", "a\r\nX: y", "a//b", "/a", "a.", "@{u}", "a@{1}", "\x7f", "\u202e", "\u200b", "x" * 251, "HEAD^{}", "a/./b", "%", "%zz", "%ff"),
)


@pytest.mark.parametrize("url", URLS)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(InvalidSpec):
        GIT.parse(f"{escaped(url)}/HEAD")


@pytest.mark.parametrize("provider", [GIT, GH, GL])
@pytest.mark.parametrize("ref", REFS)
def test_refs_that_are_none(provider: Provider, ref: str) -> None:
    start = {"git": "https%3A%2F%2Fh.org%2Fa", "gh": "a/b", "gl": "a%2Fb"}[provider.prefix]
    with pytest.raises(InvalidSpec):
        provider.parse(f"{start}/{ref if '%' in ref else escaped(ref)}")


def parsed(provider: Provider, text: str) -> RepoSpec | InvalidSpec:
    try:
        return provider.parse(text)
    except InvalidSpec as error:
        return error


def test_nothing_but_invalid_spec_comes_out_and_soon() -> None:
    chance = random.Random(20261123)  # noqa: S311
    pieces = [
        *URLS,
        *REFS,
        *map(escaped, URLS),
        "/",
        "%2F",
        "%00",
        "%",
        "..",
        "-",
        "https%3A%2F%2F",
        "[",
        "]",
        "@",
        ":",
        "é",
        "💥",
        "\u202e",
        "a" * 500,
    ]
    alphabet = string.printable + "é\0\x85\u2028\ud800"
    started = time.perf_counter()
    count = 0
    for _ in range(1200):
        text = "".join(chance.choice((chance.choice(pieces), "".join(chance.choices(alphabet, k=6)))) for _ in range(chance.randint(0, 6)))
        for provider in (GIT, GH, GL):
            count += 1
            spec = parsed(provider, text)
            if isinstance(spec, InvalidSpec):
                assert spec.message.isprintable()
                assert len(spec.message) < 600
            else:
                assert spec.url.isascii()
                assert spec.url.startswith(("https://", "http://", "ssh://", "git://"))
                assert not spec.ref.startswith("-")
                assert "\0" not in spec.url + spec.ref
    assert count >= 2000
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("text", ["a" * 100_000, "/" * 100_000, "%2F" * 40_000, "https%3A%2F%2F" + "a/" * 50_000, "\0" * 100_000])
def test_long_ones_are_refused_at_once(text: str) -> None:
    for provider in (GIT, GH, GL):
        started = time.process_time()
        with pytest.raises(InvalidSpec):
            provider.parse(text)
        assert time.process_time() - started < 0.05


def test_binderhubs_page_understands_the_providers() -> None:
    assert GH.display_config["spec"] == {"validateRegex": r"[^\/]+\/[^\/]+\/.+"}
    assert GH.display_config["detect"] == {"regex": r"^(https?://(www\.)?github\.com/)?(?<repo>.*[^/])/?"}
    assert GL.display_config["repo"]["urlEncode"] is True
    for provider in (GIT, GH, GL):
        assert {"displayName", "id", "spec", "repo", "ref"} <= set(provider.display_config)
    assert GitHub(GitHubProvider(prefix="ghe", url="https://git.example.org"), NOBODY).display_config["displayName"] == "GitHub (git.example.org)"
