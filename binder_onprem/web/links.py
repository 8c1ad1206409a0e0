"""From what people type or paste into the form to a link; the same rules as ``static/links.js``, for browsers without JavaScript. Pure."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlencode

from binder_onprem.errors import InvalidSpec

if TYPE_CHECKING:
    from binder_onprem.choice import Choice

SAFE: Final = "-_.!~*'()"
"""What JavaScript's encodeURIComponent leaves alone."""
INSIDE: Final = re.compile(r"(?P<repo>[^?#]+?)(?:/-)?/(?:tree|blob|raw|edit)/(?P<ref>[^/?#]+)(?:/(?P<path>[^?#]+))?")


def launch_path(display: dict[str, Any], repo: str, ref: str, path: str, kind: str) -> str:
    """``v2/provider/spec?…`` below the base URL.

    Args:
        display: The provider's `display_config`.
        repo: Name or URL of the repository, also of a page inside it.
        ref: Branch, tag or commit; "": the default.
        path: File to open, or URL path when `kind` is ``url``; may be "".
        kind: ``file``, ``lab`` or ``url``.

    Raises:
        InvalidSpec: No repository.
    """
    name, found_ref, found_path = pasted(display, repo)
    if not name:
        raise InvalidSpec("Give the name or the URL of a repository.")
    spec = quote(name, safe=SAFE if display["repo"].get("urlEncode") else SAFE + "/")
    if display["ref"]["enabled"]:
        spec += "/" + quote(ref.strip() or found_ref or display["ref"]["default"], safe=SAFE + "/")
    return f"v2/{display['id']}/{spec}{opening(path.strip() or found_path, kind)}"


def with_choice(path: str, choice: Choice) -> str:
    """A link with what is chosen beyond the repository."""
    query = urlencode(choice.pairs, quote_via=lambda value, *_: quote(value, safe=SAFE))
    return f"{path}{'&' if '?' in path else '?'}{query}" if query else path


def pasted(display: dict[str, Any], text: str) -> tuple[str, str, str]:
    """Repository, ref and path (each may be "") of what was pasted."""
    text = text.strip()
    detect = display.get("detect", {}).get("regex")
    if not detect:
        return text.rstrip("/"), "", ""
    match = re.match(re.sub(r"\(\?<(repo|ref)>", r"(?P<\1>", detect), text, re.IGNORECASE)
    if match and match.groupdict().get("ref"):
        return match["repo"].removesuffix(".git"), match["ref"], ""
    inner = match["repo"] if match else text
    inside = INSIDE.fullmatch(inner)
    if inside:
        return inside["repo"].removesuffix(".git"), unquote(inside["ref"]), unquote(inside["path"] or "").rstrip("/")
    return inner.partition("?")[0].partition("#")[0].strip("/").removesuffix(".git"), "", ""


def badges(url: str, badge: str, label: str) -> dict[str, str]:
    """The link's badge in three languages of markup."""
    return {
        "markdown": f"[![{label}]({badge})]({url})",
        "html": f'<a href="{escape(url)}"><img src="{escape(badge)}" alt="{escape(label)}"></a>',
        "rst": f".. image:: {badge}\n   :target: {url}\n   :alt: {label}",
    }


def opening(path: str, kind: str) -> str:
    """The query that makes the session open at a path."""
    if not path:
        return ""
    before = {"file": "/doc/tree/", "lab": "/lab/tree/"}.get(kind)
    where = path if before is None else before + quote(path.lstrip("/"), safe=SAFE + "/")
    return "?" + urlencode({"urlpath": where}, quote_via=lambda value, *_: quote(value, safe=SAFE))
