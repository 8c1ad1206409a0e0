"""Where a ready session is opened, by the rules of the page (``web/static/redirect.js``). Pure."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, unquote, urlsplit


def session_url(url: str, token: str, link: str) -> str:
    """The session's address with what the link asked to open and the token.

    Args:
        url: The session's URL, ends with ``/``.
        token: The session's token.
        link: What was launched: a whole link, whose query may say ``labpath``, ``filepath`` or ``urlpath``, or a spec.
    """
    asked = dict(parse_qsl(urlsplit(link).query)) if link.startswith(("http://", "https://")) else {}
    path, mark, fragment = _path(asked).partition("#")
    if ".." in re.split(r"[\\/]", unquote(path.partition("?")[0])):
        path, mark, fragment = "", "", ""
    return f"{url}{path}{'&' if '?' in path else '?'}token={quote(token, safe='')}{mark}{fragment}"


def _path(asked: dict[str, str]) -> str:
    if labpath := asked.get("labpath"):
        return "doc/tree/" + _file(labpath)
    if filepath := asked.get("filepath"):
        return "tree/" + _file(filepath)
    return quote(_strip(asked.get("urlpath", "")), safe="/?#&=%:;@!$'()*+,~")


def _file(name: str) -> str:
    return quote(_strip(name).rstrip("/"), safe="/&=%:;@!$'()*+,~")


def _strip(text: str) -> str:
    """Nothing that a browser drops or takes for the start of a host's name."""
    return re.sub(r"^[\\/\s]+", "", re.sub(r"[\x00-\x1f\x7f]", "", text))
