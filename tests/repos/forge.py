"""GitHub and GitLab on loopback: their APIs' answers about repositories, and git over HTTP with their answers to who may not read one.

As their documentation and public servers have them. Without a token, or with one that may not see it, a private repository is absent: 404 at both
APIs. Over git both ask whoever shows no account for one (401), whether or not there is such a repository; a token that is none (any more) gets
401, one that may not see the repository 404, one that may see it and not its contents 403. GitHub's API answers 401 to a bad token whatever is asked.
"""

from __future__ import annotations

import base64
import binascii
import json
import subprocess
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote

from tests.repos.contents import Repository
from tests.repos.server import GitServer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message
    from pathlib import Path

    from tests.repos.server import Answer


@dataclass(frozen=True, slots=True)
class Token:
    """What a token may do: read these private repositories, and see those without reading them."""

    reads: frozenset[str] = frozenset()
    sees: frozenset[str] = frozenset()


class Forge(GitServer):
    """Serves ``owner/name`` below a folder, at both hosts' addresses.

    Attributes:
        private: Repositories that tokens open.
        tokens: Those that are valid.
        forbids: Tokens that the API answers 403, as it does where an organisation admits no such token or a scope is missing.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.private: set[str] = set()
        self.tokens: dict[str, Token] = {}
        self.forbids: set[str] = set()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def make(self, name: str, files: Mapping[str, str | bytes], *, private: bool = True) -> Repository:
        """A repository ``owner/name``."""
        owner, _, short = name.partition("/")
        (self.folder / owner).mkdir(exist_ok=True)
        made = Repository.make(self.folder / owner, short, files)
        (self.folder / owner / f"{short}.git").symlink_to(short)
        if private:
            self.private.add(name)
        return made

    def commit(self, name: str) -> str:
        """Of the main branch."""
        return Repository(self.folder / name).commit

    def instead(self, path: str, headers: Message) -> Answer | None:
        """What the API answers, or git's server to whoever may not read."""
        parts = path.partition("?")[0].strip("/").split("/")
        if parts[:3] == ["api", "v3", "repos"]:
            return self._github(f"{parts[3]}/{parts[4]}", unquote("/".join(parts[6:])), headers.get("Authorization", "").removeprefix("Bearer "))
        if parts[:3] == ["api", "v4", "projects"]:
            return self._gitlab(unquote(parts[3]), unquote("/".join(parts[6:])), headers.get("PRIVATE-TOKEN", ""))
        return self._git("/".join(parts[:2]).removesuffix(".git"), _password(headers.get("Authorization", "")))

    def _github(self, name: str, ref: str, token: str) -> Answer:
        if token and token not in self.tokens:
            return _said(401, {"message": "Bad credentials", "documentation_url": "https://docs.github.com/rest", "status": "401"})
        if token in self.forbids:
            return _said(403, {"message": "Resource not accessible by personal access token", "status": "403"})
        if not self._seen(name, token):
            return _said(404, {"message": "Not Found", "documentation_url": "https://docs.github.com/rest", "status": "404"})
        commit = self._commit(name, ref)
        if commit is None:
            return _said(422, {"message": f"No commit found for SHA: {ref}", "status": "422"})
        return 200, [("Content-Type", "application/vnd.github.sha; charset=utf-8"), ("X-RateLimit-Remaining", "4999")], commit.encode()

    def _gitlab(self, name: str, ref: str, token: str) -> Answer:
        if token and token not in self.tokens:
            return _said(401, {"message": "401 Unauthorized"})
        if token in self.forbids:
            return _said(403, {"error": "insufficient_scope", "error_description": "The request requires higher privileges", "scope": "api read_api"})
        if not self._seen(name, token):
            return _said(404, {"message": "404 Project Not Found"})
        commit = self._commit(name, ref)
        return _said(200, {"id": commit, "short_id": commit[:8]}) if commit else _said(404, {"message": "404 Commit Not Found"})

    def _git(self, name: str, token: str | None) -> Answer | None:
        if token is None and (name in self.private or not self._there(name)):
            return 401, [("WWW-Authenticate", 'Basic realm="Git"')], b"Authentication required."
        if token is None:
            return None
        if token not in self.tokens:
            return 401, [("WWW-Authenticate", 'Basic realm="Git"')], b"Invalid username or token."
        if not self._there(name) or not self._seen(name, token):
            return 404, [], b"Repository not found."
        readable = name not in self.private or name in self.tokens[token].reads
        return None if readable else (403, [], b"You are not allowed to download code from this project.")

    def _there(self, name: str) -> bool:
        return (self.folder / name / ".git").is_dir()

    def _seen(self, name: str, token: str) -> bool:
        known = self.tokens.get(token, Token())
        return self._there(name) and (name not in self.private or name in known.reads | known.sees)

    def _commit(self, name: str, ref: str) -> str | None:
        try:
            return Repository(self.folder / name).git("rev-parse", "--verify", f"{ref}^{{commit}}")
        except subprocess.CalledProcessError:
            return None


def _said(status: int, body: Mapping[str, object]) -> Answer:
    return HTTPStatus(status), [("Content-Type", "application/json")], json.dumps(body).encode()


def _password(header: str) -> str | None:
    """Of ``Authorization: Basic``; None where nobody showed an account."""
    try:
        return base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")[2] if header else None
    except (binascii.Error, UnicodeDecodeError):
        return None
