"""Text that goes to strangers, such as a bug report, without its secrets.

Two nets. Known values: whatever stands in files of secrets is replaced wherever it occurs, encoded or not. Patterns: what looks like a secret,
which is the only net for those that nobody has written down, such as tokens of sessions. What is doubtful goes: a report may lose a word.

Pure, and of the standard library alone: hosts on which nothing of ours is installed run it, too.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

GONE: Final = "[removed]"
SHORTEST: Final = 5
"""Characters of a known value: shorter ones are words of any text, and go by patterns only."""
LINE: Final = 32768
"""Characters of a line that are kept."""
KEY_LINES: Final = 200
"""Lines that a private key may have."""

_WORDS: Final = (
    r"(?:pass(?:wor|wo)?d|(?<!ht)passwd|passphrase|pwd(?!=/)|secret|token|api[_.-]?key|access[_.-]?key(?:[_.-]?id)?|(?:private|secret|client|signing|"
    r"encryption|account)[_.-]?key|key[_.-]data|signature|hmac|csrf|xsrf|session[_.-]?id|last-event-id)s?"
)
_QUOTE: Final = r"(?:\\{0,8}[\"'])"
_QUOTED: Final = r"(?:\"(?:\\.|[^\"\\])*(?:\"|$)|'(?:''|\\.|[^'\\])*(?:'|$)|(?P<quote>\\{1,8}[\"']).*?(?:(?P=quote)|$))"
# A bare value ends at a separator only where another name, or nothing, stands behind it: passwords have separators in them.
_NAME_NEXT: Final = r"[\w.%-]{1,60}[ \t]{0,4}[=:]"
_BARE: Final = rf"(?:(?:[^\s\"',;&]|[\"'](?![\s,;&}}\])]|$)|[,;&](?![ \t]{{0,4}}{_NAME_NEXT}|[ \t]|$))+)"
_NOTHING: Final = r"(?!(?:null|none|true|false|~|\[removed\]|\[redacted\])(?:[\s,;}\])\"'\\]|$))"
_ASSIGNED: Final = re.compile(
    rf"(?P<name>{_WORDS}{_QUOTE}?[ \t]{{0,8}}(?>(?P<colon>:[ \t]{{1,8}})|(?:=>|[:=])[ \t]{{0,8}})){_NOTHING}"
    rf"(?P<value>\[[^\]\n]*\]?|(?!\{{)(?:{_QUOTED}|{_BARE}){_BARE}?(?(colon)(?:[ \t]{{1,8}}(?!{_NAME_NEXT}){_BARE})*))",
    re.IGNORECASE | re.MULTILINE,
)
_ENCODED: Final = r"%(?:25){0,4}"
_TELLING: Final = (
    "pass",
    "pwd",
    "secret",
    "token",
    "key",
    "signature",
    "hmac",
    "srf",
    "sessionid",
    "session_id",
    "session-id",
    "session.id",
    "last-event",
)
_PATTERNS: Final = (
    (
        ("authorization", "cookie"),
        re.compile(
            rf"(?P<name>\b(?:(?:proxy-)?authorization|(?:set-)?cookie){_QUOTE}?[ \t]{{0,8}}[:=][ \t]{{0,8}}+)(?!\[removed\])(?:{_QUOTED}|.+)",
            re.IGNORECASE,
        ),
    ),
    (("auth",), re.compile(rf"(?P<name>\bauth{_QUOTE}?[ \t]{{0,8}}[:=][ \t]{{0,8}}){_QUOTED}", re.IGNORECASE)),
    # An account in a URL: where it has a password up to the last at sign, as passwords may have more of them.
    (
        ("@",),
        re.compile(
            r"(?P<name>:/{2,3})(?:[^\s/\"'<>@:]{0,200}:(?!\d{1,5}[/\s])[^\s\"'<>]{1,500}|(?<!ssh://)[^\s/\"'<>@:]{1,500})(?=@)", re.IGNORECASE
        ),
    ),
    (
        ("3a%",),
        re.compile(rf"(?P<name>{_ENCODED}3a(?:{_ENCODED}2f){{2}})(?:(?!{_ENCODED}(?:2f|40)|[\s/@]).){{1,500}}(?={_ENCODED}40|@)", re.IGNORECASE),
    ),
    (("@",), re.compile(r"(?P<name>(?<![\w./@+-])[\w.+-]{1,64}:)(?!//)[^\s:@/\"']{3,200}(?=@[\w-])")),
    (("3d",), re.compile(rf"(?P<name>(?:{_WORDS}|code|key|state|ticket){_ENCODED}3d)(?:(?!{_ENCODED}(?:26|23))[^\s\"'&])+", re.IGNORECASE)),
    (
        ("?", "&"),
        re.compile(r"(?P<name>[?&](?:code|state|sig|key|ticket|nonce|session_state|assertion|samlresponse)=)[^&\s\"']{10,}", re.IGNORECASE),
    ),
    (_TELLING, _ASSIGNED),
    (
        _TELLING,
        re.compile(rf"(?P<name>--?[\w-]{{0,40}}{_WORDS}{_QUOTE}?(?:[ \t]{{1,4}}|,[ \t]?){_QUOTE}?)(?!-|\[removed\])[^\s\"',\]]+", re.IGNORECASE),
    ),
    (
        ("pass", "secret", "token"),
        re.compile(
            r"(?P<name>\b(?:password|passwd|passphrase|secret|token)[ \t]{1,4}(?:(?:is|was|of|for|with)[ \t]{1,4})?[\"'`(]?)"
            r"(?=[^\s\"'`]{0,200}\d)[^\s\"'`]{6,}",
            re.IGNORECASE,
        ),
    ),
    (
        ("basic", "bearer", "negotiate"),
        re.compile(r"(?P<name>\b(?:basic|bearer|negotiate)[ \t]{1,4})(?!authentication\b)[\w+/=.~-]{8,}", re.IGNORECASE),
    ),
    (("eyj",), re.compile(r"(?P<name>)\beyJ[\w-]{6,}\.[\w-]{4,}(?:\.[\w-]*)?")),
    (
        ("gh", "gl", "xox", "npm_", "pypi-", "hf_", "sk-"),
        re.compile(r"(?P<name>)\b(?:gh[a-z]_|github_pat_|gl[a-z]{2,8}-|xox[a-z]-|npm_|pypi-|hf_|sk-)[\w-]{16,}"),
    ),
    (("akia", "asia"), re.compile(r"(?P<name>)\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    (("age-secret",), re.compile(r"(?P<name>)\bAGE-SECRET-KEY-1[0-9A-Z]+", re.IGNORECASE)),
    (("::",), re.compile(r"(?P<name>)\bK10[0-9a-f]{32,}::[^\s\"']+")),
    (("$",), re.compile(r"(?P<name>)\$(?:2[abxy]?|[156y]|argon2\w{1,2}|scrypt)\$[\w./$+=,-]{8,}")),
)
"""Each with what is in a line that it is worth looking for in."""
_OPENED: Final = re.compile(_QUOTE)
_BEGIN: Final = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_END: Final = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_BODY: Final = re.compile(r"(?:^|[\s:])[A-Za-z0-9+/=]{8,}\s*$")
_SECTION: Final = re.compile(rf"(?P<indent>\s*(?:- +)*)[\"']?[\w.-]{{0,60}}?{_WORDS}[\"']?\s*:(?P<value>.*)$", re.IGNORECASE)


def words_of(text: str) -> frozenset[str]:
    """Secrets of a file that holds little else, as an account, a token, a key or a kubeconfig: the whole of it, and its words that look like one."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("-----", "#"))]
    found = set(lines) if len(lines) == 1 else set()
    for line in lines:
        for word in re.split(r"[\s\"',;{}\[\]]+", line):
            found |= {part for part in (word, word.partition("=")[2], word.partition(":")[2], word.rpartition(":")[2]) if _random(part)}
    return frozenset(word for word in found | values_of(text) if len(word) >= SHORTEST)


def _random(word: str) -> bool:
    """Whether a word looks like a secret, and not like a name, a path, a number or an address."""
    if "://" in word or word.startswith("/") or len(word) < SHORTEST or re.fullmatch(r"[\d.:/+-]+|[\w.-]{1,80}:\d{1,5}", word):
        return False
    return (bool(re.search(r"\d", word)) and bool(re.search(r"[A-Za-z]", word))) or bool(re.fullmatch(r"[A-Za-z0-9+/=_-]{32,}", word))


def values_of(text: str) -> frozenset[str]:
    """Secrets of a file of settings (YAML, JSON, assignments): what stands behind telling names, and accounts in URLs."""
    found = set[str]()
    for match in _ASSIGNED.finditer(text):
        value = match["value"].strip()
        found |= {word.strip(" \"'") for word in value.strip("[]").split(",")} if value.startswith("[") else {value.strip("\"'\\"), value}
    for account in re.findall(r"://([^\s\"'<>]{1,500})@", text):
        parts = {account, account.partition(":")[2]}
        found |= parts | {unquote(part) for part in parts}
    return frozenset(value for value in found if len(value) >= SHORTEST and not value.startswith("/"))


def net(values: Iterable[str]) -> tuple[str, ...]:
    """Known secrets in all the forms in which they may stand somewhere, the longest first."""
    found = {form for value in values for form in _forms(value) if len(form) >= SHORTEST}
    return tuple(sorted(found, key=lambda form: (-len(form), form)))


def _forms(value: str) -> Iterator[str]:
    """As it is, in a URL, in JSON, in base64 whatever stands before and behind it there."""
    if len(value) < SHORTEST:
        return
    yield from (value, quote(value, safe=""), quote(quote(value, safe=""), safe=""), json.dumps(value)[1:-1])
    data = value.encode()
    for before in range(3):
        # The first characters have bits of what stands before, the last one has bits of what stands behind.
        text = base64.b64encode(b"\0" * before + data).decode().rstrip("=")
        text = text[before + (before > 0) : len(text) - ((before + len(data)) % 3 > 0)]
        if len(text) > 2 * SHORTEST:
            yield from (text, text.translate(str.maketrans("+/", "-_")))


def without(text: str, known: tuple[str, ...]) -> str:
    """The text without known values, which `net` gives."""
    for value in known:
        if value in text:
            text = text.replace(value, GONE)
    return text


def redacted(text: str, known: tuple[str, ...] = ()) -> str:
    """The text without known values, without what looks like a secret, and with long lines cut: in this order, or half a secret were none.

    Args:
        text: Any.
        known: By `net`.
    """
    done: list[str] = []
    indent, items = -1, False
    for line in _keyless(without(text, known).split("\n")):
        bare = line.lstrip()
        here = len(line) - len(bare)
        # YAML's blocks, lists and long values go on with the secret of the line that has its name; so does JSON where it is indented.
        if bare and indent >= 0 and (here > indent or (items and here == indent and bare.startswith("- "))):
            done += [f"{line[:here]}{GONE}"] if done[-1].strip() != GONE else []
            continue
        if bare:
            section = _SECTION.match(line)
            indent, items = (len(section["indent"]), not section["value"].strip()) if section else (-1, False)
        done.append(_line(line))
    return "\n".join(done)


def _keyless(lines: list[str]) -> list[str]:
    """Lines without private keys, whole ones and those whose beginning or end was cut off."""
    done: list[str] = []
    inside = 0
    for line in lines:
        begin, end = _BEGIN.search(line), _END.search(line)
        rest = line[end.end() :] if end else ""
        if inside:
            inside = 0 if end else inside - 1
            done += [rest] if rest.strip() else []
        elif begin:
            inside = 0 if end else KEY_LINES
            done.append(f"{line[: begin.start()]}{GONE}{rest}")
        elif end:
            left = next((number for number in range(min(KEY_LINES, len(done))) if not _BODY.search(done[-1 - number])), min(KEY_LINES, len(done)))
            done[len(done) - left :] = [f"{GONE}{rest}"]
        else:
            done.append(line)
    return done


def _line(line: str) -> str:
    line = f"{line[:LINE]} [cut]" if len(line) > LINE else line
    low = line.lower()
    for hints, pattern in _PATTERNS:
        if any(hint in low for hint in hints):
            line = pattern.sub(_gone, line)
    return line


def _gone(match: re.Match[str]) -> str:
    """What is put there: between the quotes that were there, so that JSON stays JSON."""
    opened = _OPENED.match(match[0], len(match["name"]))
    return f"{match['name']}{opened[0]}{GONE}{opened[0]}" if opened else f"{match['name']}{GONE}"
