"""The site's own look at an image before it is used: a command that gets the list of contents and says yes or no.

Called by `chain`. The command is the administrator's; what it prints is only ever shown as a cut sentence. Its time is bounded, and it ends with us.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

OUTPUT: Final = 64 * 1024
SENTENCE: Final = 300


@dataclass(frozen=True, slots=True)
class Scan:
    """What came of it.

    Attributes:
        accepted: Exit status 0.
        exit: Exit status; None when it did not start or took too long.
        sentence: The last line that it printed, or why there is none.
        seconds: How long it took.
        time: Unix seconds, UTC, of its end.
    """

    accepted: bool
    exit: int | None
    sentence: str
    seconds: float
    time: float


async def scan(command: Sequence[str], image: str, sbom: bytes, seconds: float) -> Scan:
    """Run the command with the document on its input.

    Args:
        command: Program and arguments.
        image: ``…@sha256:…``, given as ``IMAGE``.
        sbom: The document.
        seconds: Limit.
    """
    began = time.monotonic()
    code, said = await _ran(command, {"PATH": os.environ.get("PATH", os.defpath), "IMAGE": image}, sbom, seconds)
    return Scan(code == 0, code, said, round(time.monotonic() - began, 2), time.time())


async def _ran(command: Sequence[str], environment: dict[str, str], content: bytes, seconds: float) -> tuple[int | None, str]:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        return None, f"it does not start: {error.strerror}"
    try:
        async with asyncio.timeout(seconds):
            printed = await _told(process, content)
            return await process.wait(), _sentence(printed)
    except TimeoutError:
        return None, f"it took longer than {seconds:g} s"
    finally:
        # Its children too: a shell that is killed leaves them.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _told(process: asyncio.subprocess.Process, content: bytes) -> bytes:
    """Feed it and hear it at once; only the end of what it prints is kept."""
    assert process.stdin  # noqa: S101 - a pipe
    assert process.stdout  # noqa: S101 - a pipe
    feeding = asyncio.create_task(_fed(process.stdin, content))
    printed = b""
    while chunk := await process.stdout.read(OUTPUT):
        printed = (printed + chunk)[-OUTPUT:]
    await feeding
    return printed


async def _fed(pipe: asyncio.StreamWriter, content: bytes) -> None:
    # One that does not read its input is no failure.
    with contextlib.suppress(ConnectionError):
        pipe.write(content)
        await pipe.drain()
        pipe.close()
        await pipe.wait_closed()


def _sentence(printed: bytes) -> str:
    lines = [line for line in printed.decode("utf-8", "replace").splitlines() if line.strip()]
    return "".join(filter(str.isprintable, lines[-1]))[:SENTENCE].strip() if lines else ""
