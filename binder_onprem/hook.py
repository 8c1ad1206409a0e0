"""The site's own program, asked before each start of a session: it may refuse with a sentence, or narrow the terms. Called by `launch`.

It gets JSON on its standard input and an environment with nothing in it: no token, no key, nothing of ours. Its time and its answer are bounded.
What it says is checked like anything from outside: it gives no session more than the site's settings do.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from binder_onprem.errors import ConfigError, Refused, Unavailable
from binder_onprem.terms import NUMBERS, Terms, unfit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from binder_onprem import config
    from binder_onprem.model import LaunchRequest, ResolvedRepo

logger = logging.getLogger(__name__)

ANSWER_BYTES: Final = 64 * 1024
SENTENCE: Final = 500
"""Characters."""
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FAILED: Final = "This site's own check of launches does not work just now, so nothing is launched. Tell the administrator."


class _Broken(Exception):
    """It did not answer, or not as it should; says how."""


@dataclass(frozen=True, slots=True)
class Hook:
    """The program.

    Attributes:
        rules: What to run, how long, and what its failure does.
        site: The limits of sessions that it cannot exceed, all of them given.
        modules: Directory that modules of an entry point are also looked for in.
    """

    rules: config.Hook
    site: Terms
    modules: Path

    @classmethod
    def of(cls, settings: config.Config) -> Hook | None:
        """The site's, if it has one. Raises `ConfigError` for a program that cannot be run."""
        rules, limits = settings.hook, settings.session
        if not (rules.command or rules.entry_point):
            return None
        if rules.command and not os.access(rules.command[0], os.X_OK):
            raise ConfigError(f"hook.command: {rules.command[0]} is no program that can be run")
        site = Terms(int(limits.memory), limits.cpus, limits.idle, limits.age)
        return cls(rules, site, settings.home / "hooks")

    async def ask(self, request: LaunchRequest, repo: ResolvedRepo, image: str, terms: Terms) -> Terms:
        """The terms as the program leaves them.

        Args:
            request: The click.
            repo: What is launched.
            image: ``…@sha256:…``.
            terms: What the settings say.

        Raises:
            Refused: It says no; its own sentence.
            Unavailable: It failed, and the site has such launches refused.
        """
        try:
            return self._read(await self._answer(_told(request, repo, image)), terms)
        except _Broken as broken:
            logger.warning("hook failed", extra={"reason": str(broken), "ignored": self.rules.on_failure == "ignore"})
            if self.rules.on_failure == "ignore":
                return terms
            raise Unavailable(FAILED, retry_after=60) from None

    def _read(self, answer: bytes, terms: Terms) -> Terms:
        try:
            data = json.loads(answer or b"{}")
        except (ValueError, RecursionError):
            raise _Broken("its answer is not JSON") from None
        if not isinstance(data, dict) or (unknown := data.keys() - {"refuse", "environment", *NUMBERS}):
            raise _Broken("its answer is no object" if not isinstance(data, dict) else f"its answer has {min(unknown)!r:.50}")
        if data.get("refuse"):
            raise Refused("".join(filter(str.isprintable, str(data["refuse"])))[:SENTENCE])
        numbers, variables = {name: data[name] for name in NUMBERS if data.get(name) is not None}, data.get("environment") or {}
        if not all(isinstance(value, int | float) and not isinstance(value, bool) and value > 0 for value in numbers.values()):
            raise _Broken("a limit in its answer is no number above zero")
        if why := unfit(variables) if isinstance(variables, dict) else "something that is no object":
            raise _Broken(f"its environment has {why}")
        if "memory" in numbers:
            numbers["memory"] = int(numbers["memory"])
        return terms.narrowed(numbers, variables, self.site)

    async def _answer(self, told: Mapping[str, Any]) -> bytes:
        command = self.rules.command or (sys.executable, "-m", "binder_onprem.hookcall", str(self.rules.entry_point))
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={"PATH": PATH, "LANG": "C.UTF-8", "PYTHONPATH": str(self.modules)},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise _Broken(f"it cannot be started: {error.strerror}") from None
        try:
            async with asyncio.timeout(self.rules.timeout):
                return await _spoken(process, json.dumps(told).encode())
        except TimeoutError:
            raise _Broken(f"it took longer than {self.rules.timeout:g} s") from None
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it left behind
            await process.wait()


async def _spoken(process: asyncio.subprocess.Process, told: bytes) -> bytes:
    if process.stdin is None or process.stdout is None:
        raise AssertionError("both were asked for")
    process.stdin.write(told)
    with suppress(ConnectionError):  # one that does not read
        await process.stdin.drain()
        process.stdin.close()
    answer = b""
    while chunk := await process.stdout.read(ANSWER_BYTES):
        answer += chunk
        if len(answer) > ANSWER_BYTES:
            raise _Broken(f"its answer is longer than {ANSWER_BYTES} bytes")
    if status := await process.wait():
        raise _Broken(f"it ended with status {status}")
    return answer


def _told(request: LaunchRequest, repo: ResolvedRepo, image: str) -> dict[str, Any]:
    client = request.client
    return {
        "launch_id": request.launch_id,
        "provider": request.provider,
        "spec": request.path,
        "repo_url": repo.url,
        "ref": repo.spec.ref,
        "commit": repo.commit,
        "image": image,
        "user": client.user,
        "groups": sorted(client.groups),
        "address": client.address,
    }
