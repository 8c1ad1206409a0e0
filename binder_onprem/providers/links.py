"""What links of all providers have in common: strict reading of text that anybody may have written. Pure; raises nothing but `InvalidSpec`."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, unquote

from dulwich.refs import check_ref_format

from binder_onprem.errors import InvalidSpec

PATH_LIMIT: Final = 2048
"""Characters of a link after the provider's prefix."""
REF_LIMIT: Final = 250
SHOWN_LIMIT: Final = 120
FULL_SHA: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
SHORT_SHA: Final = re.compile(r"[0-9a-f]{7,63}")
CREDENTIALS: Final = re.compile(r"(//|%2[Ff]%2[Ff])[^/@]{1,500}?(@|%40)")
OLD_DEFAULTS: Final = frozenset({"master", "main"})
"""Branches that old links name although the repository's default branch is called otherwise."""


def shown(text: str) -> str:
    """A client's text for a message: printable, cut, without user names and passwords of URLs."""
    text = CREDENTIALS.sub(r"\1…\2", text[:PATH_LIMIT])
    clean = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[: SHOWN_LIMIT + 1])
    return clean if len(clean) <= SHOWN_LIMIT else clean[:SHOWN_LIMIT] + "…"


def checked(path: str) -> str:
    """The raw path of a link without slashes at its end. Raises InvalidSpec when it is too long or has letters that no link has."""
    if len(path) > PATH_LIMIT:
        raise InvalidSpec(f"The link is too long: more than {PATH_LIMIT} characters. Check that the whole of it is a repository and a ref.")
    _printable(path)
    return path.rstrip("/")


def decoded(text: str) -> str:
    """A percent-encoded part of a link, decoded once. Raises InvalidSpec."""
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise InvalidSpec(f'A "%" in "{shown(text)}" is not followed by two hexadecimal digits. Copy the link again.')
    try:
        plain = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise InvalidSpec(f'"{shown(text)}" is not UTF-8 text. Copy the link again.') from None
    _printable(plain)
    return plain


def _printable(text: str) -> None:
    if not text.isprintable() or "\\" in text or " " in text:
        raise InvalidSpec(f'"{shown(text)}" has spaces, backslashes or invisible characters, which links to repositories do not have.')


def ref_name(text: str) -> str:
    """A branch, tag, commit or HEAD, percent-encoded, by git's own rules for names. Raises InvalidSpec."""
    ref = decoded(text)
    if FULL_SHA.fullmatch(ref.lower()):
        return ref.lower()
    name = ref.encode()
    if ref.startswith("-") or len(name) > REF_LIMIT or not check_ref_format(b"refs/heads/" + name) or ref == "@":
        raise InvalidSpec(f'"{shown(ref)}" cannot be the name of a branch, tag or commit. Use one that the repository has, or HEAD.')
    return ref


def segments(path: str) -> list[str]:
    """Parts of a repository's path between slashes. Raises InvalidSpec for parts that lead elsewhere or could be taken for an option."""
    parts = path.split("/")
    for part in parts:
        # decoded as often as any server might: %252e%252e is two dots to somebody
        plain = unquote(unquote(part))
        if not part or plain in (".", "..") or plain.startswith("-") or "/" in plain or not plain.isprintable() or "\\" in plain:
            raise InvalidSpec(f'"{shown(path)}" is not the path of a repository.')
    return parts


def escaped(text: str) -> str:
    """Percent-encoded so that it is one part of a link."""
    return quote(text, safe="")


def bad_form(form: str, path: str, suggestion: str | None) -> InvalidSpec:
    """The error of a link that lacks a part, in BinderHub's words."""
    hint = f' Did you mean "{shown(suggestion)}"?' if suggestion else ""
    return InvalidSpec(f'Spec is not of the form "{form}", provided: "{shown(path)}".{hint}')
