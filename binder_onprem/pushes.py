"""Who tells of a push, and of what: checking signatures and reading payloads. Pure, called by `web.hooks`.

Comparisons take the same time whatever is wrong. Where the sender signs a time, an old one is refused; where it does not, what is signed is
the body, and one body has an effect once.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from binder_onprem.errors import InvalidSpec, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from binder_onprem.config import PushHook

AGE_SECONDS: Final = 300
FAR: Final = "The signature of this request does not hold."
OLD: Final = "This request is too old, or the clocks differ by more than five minutes."
COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
LINKS: Final = {
    "github": "gh/{full_name}/{commit}",
    "gitlab": "gl/{full_name_quoted}/{commit}",
    "gitea": "git/{clone_url_quoted}/{commit}",
    "generic": "git/{clone_url_quoted}/{commit}",
}


@dataclass(frozen=True, slots=True)
class Push:
    """What was pushed.

    Attributes:
        full_name: ``owner/name``.
        clone_url, html_url: Of the repository.
        branch: Or tag.
        commit: The new one.
    """

    full_name: str
    clone_url: str
    html_url: str
    branch: str
    commit: str

    def link(self, hook: PushHook) -> str:
        """``provider/path`` at the commit. Raises `InvalidSpec` for a template that names something else."""
        plain = {"full_name": self.full_name, "clone_url": self.clone_url, "html_url": self.html_url, "branch": self.branch, "commit": self.commit}
        quoted = {f"{name}_quoted": quote(value, safe="") for name, value in plain.items()}
        try:
            return (hook.link or LINKS[hook.kind]).format(**plain, **quoted)
        except (KeyError, IndexError, ValueError):
            raise InvalidSpec("The hook's link in this site's settings does not hold. Tell the administrator.") from None


def check(hook: PushHook, key: bytes, headers: Mapping[str, str], body: bytes, now: float) -> None:
    """Let a request of the hook's sender pass.

    Args:
        hook: Its settings.
        key: The shared secret.
        headers: Of the request, in any case.
        body: As it came.
        now: Unix seconds.

    Raises:
        Refused: Not signed, not with this secret, or too old.
    """
    if "webhook-signature" in headers and hook.kind in ("gitlab", "generic"):
        _standard(key, headers, body, now)
    elif hook.kind == "gitlab":
        _same(headers.get("X-Gitlab-Token", "").encode(), key)
    else:
        names = {"github": ("X-Hub-Signature-256",), "gitea": ("X-Gitea-Signature", "X-Forgejo-Signature", "X-Hub-Signature-256")}
        given = next((headers[name] for name in names.get(hook.kind, ("X-Hub-Signature-256",)) if name in headers), "")
        mac = hmac.new(key, body, hashlib.sha256).hexdigest()
        _same(given.removeprefix("sha256=").encode(), mac.encode())


def _same(given: bytes, expected: bytes) -> None:
    if not hmac.compare_digest(given, expected):
        raise Refused(FAR)


def _standard(key: bytes, headers: Mapping[str, str], body: bytes, now: float) -> None:
    moment = headers.get("webhook-timestamp", "")
    signed = f"{headers.get('webhook-id', '')}.{moment}.".encode() + body
    mac = hmac.new(key, signed, hashlib.sha256).digest()
    given = [text.removeprefix("v1,") for text in headers["webhook-signature"].split(" ")[:16] if text.startswith("v1,")]
    if not any([hmac.compare_digest(_decoded(text), mac) for text in given]):  # noqa: C419 - each is looked at, whichever fits
        raise Refused(FAR)
    if not (moment.isdecimal() and len(moment) <= 12 and abs(now - int(moment)) <= AGE_SECONDS):  # noqa: PLR2004 - digits of a time
        raise Refused(OLD)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def read(hook: PushHook, headers: Mapping[str, str], body: bytes) -> Push | None:
    """What was pushed; None when it is no push of a commit: a ping, a deleted branch, another event.

    Raises:
        InvalidSpec: It is not a payload of this kind.
    """
    names = {"github": "X-GitHub-Event", "gitlab": "X-Gitlab-Event", "gitea": "X-Gitea-Event"}
    event = headers.get(names.get(hook.kind, ""), "push").lower()
    if event not in ("push", "push hook", "tag push hook"):
        return None
    try:
        data = json.loads(body)
        push = _generic(data) if hook.kind == "generic" else _gitlab(data) if hook.kind == "gitlab" else _github(data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InvalidSpec("The body is not what this kind of hook sends for a push.") from None
    if not COMMIT.fullmatch(push.commit) or not push.commit.strip("0"):
        return None
    return push


def _branch(ref: Any) -> str:
    return str(ref).removeprefix("refs/heads/").removeprefix("refs/tags/")[:1024]


def _github(data: Any) -> Push:
    repository = data["repository"]
    urls = str(repository["clone_url"]), str(repository.get("html_url", ""))
    return Push(str(repository["full_name"]), *urls, _branch(data["ref"]), str(data["after"]))


def _gitlab(data: Any) -> Push:
    project = data["project"]
    commit = str(data.get("checkout_sha") or data["after"])
    urls = str(project["git_http_url"]), str(project.get("web_url", ""))
    return Push(str(project["path_with_namespace"]), *urls, _branch(data["ref"]), commit)


def _generic(data: Any) -> Push:
    url = str(data["url"])
    return Push(str(data.get("name", "")), url, url, _branch(data.get("ref", "HEAD")), str(data["commit"]).lower())
