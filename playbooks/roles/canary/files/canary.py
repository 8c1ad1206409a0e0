"""A launch through the public port, a calculation by its kernel, its end; prints what it took. For the Binder's own Python.

    canary.py LINK SECONDS [METRICS]

METRICS is a file for the node exporter's textfile collector; nothing is written where its directory is not there.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from yarl import URL

from binder_onprem import config as configuration
from binder_onprem.cli.client import connected
from binder_onprem.cli.launch import spec_of
from binder_onprem.errors import BinderError
from binder_onprem.host.samples import sample_link

if TYPE_CHECKING:
    from collections.abc import Sequence

CODE, RESULT = "print(6 * 7)", "42"
LAST = "binder_canary_last_success_timestamp_seconds"


async def launched(config: configuration.Config, link: str) -> tuple[str, str]:
    """Base URL and token of a session."""
    async with connected(config) as client:
        async for event in client.launch(spec_of(link)):
            if event["phase"] == "failed":
                raise SystemExit(f"The launch of {link} failed: {event['message'].strip()}")
            if event["phase"] == "ready":
                return event["url"], event["token"]
    raise SystemExit(f"The launch of {link} ended without a word. See /admin, and journalctl -u 'binder-onprem*'.")


async def calculated(http: aiohttp.ClientSession, url: str) -> str:
    """What a kernel of the session prints."""
    async with http.post(f"{url}api/kernels", json={}) as answer:
        answer.raise_for_status()
        kernel = (await answer.json())["id"]
    header = {"msg_id": uuid.uuid4().hex, "username": "", "session": uuid.uuid4().hex, "msg_type": "execute_request", "version": "5.3"}
    content = {"code": CODE, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    async with http.ws_connect(f"{url}api/kernels/{kernel}/channels") as channel:
        await channel.send_json({"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"})
        async for message in channel:
            told: dict[str, Any] = json.loads(message.data)
            if told.get("msg_type") == "stream" and told["parent_header"].get("msg_id") == header["msg_id"]:
                return str(told["content"]["text"]).strip()
    raise SystemExit("The session's kernel closed its channel before it answered.")


async def ended(config: configuration.Config, url: str) -> None:
    """Stop the session."""
    async with connected(config) as client:
        await client.json("DELETE", f"api/sessions/{url.rstrip('/').rpartition('/')[2]}")


async def main(config: configuration.Config, link: str, seconds: float) -> None:
    """Do it; the session ends however it goes."""
    start = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            url, token = await launched(config, link or sample_link(config))
            ready = time.monotonic() - start
            try:
                async with aiohttp.ClientSession(headers={"Authorization": f"token {token}"}) as http:
                    said = await calculated(http, url)
            finally:
                await ended(config, url)
    except TimeoutError:
        raise SystemExit(f"Not done after {seconds:.0f} s. See /admin for what it waits for.") from None
    except aiohttp.ClientError as error:
        raise SystemExit(f"The session does not answer through the public port: {error}") from None
    except BinderError as error:
        raise SystemExit(error.message) from None
    if said != RESULT:
        raise SystemExit(f"The kernel calculated {said!r} where {RESULT} is right.")
    text = f"a session in {ready:.1f} s, its kernel's answer after {time.monotonic() - start:.1f} s"
    print(json.dumps({"level": "ok", "subject": "canary", "text": text, "fix": ""}))  # noqa: T201 - the answer


def tell(file: Path, *, worked: bool, seconds: float, ends: Sequence[tuple[str, float]]) -> None:
    """Have Prometheus know how it went, and when; the last success stays until the next one."""
    if not file.parent.is_dir():
        return
    last = f"{LAST} {time.time():.0f}\n" if worked else next((f"{line}\n" for line in _lines(file) if line.startswith(f"{LAST} ")), "")
    told = f"binder_canary_success {int(worked)}\nbinder_canary_seconds {seconds:.3f}\nbinder_canary_run_timestamp_seconds {time.time():.0f}\n"
    told += "".join(f'binder_certificate_end_timestamp_seconds{{of="{name}"}} {end:.0f}\n' for name, end in ends)
    new = file.with_suffix(".new")
    new.write_text(told + last, encoding="ascii")
    new.chmod(0o644)
    new.replace(file)


def certificates(config: configuration.Config) -> list[tuple[str, float]]:
    """Of the registry and of the public address, where they speak TLS: name, end in Unix seconds; one that cannot be read is the launch's matter."""
    places = [("registry", URL(config.registry_url)), ("public address", URL(config.public_url))]
    found = []
    for name, url in places:
        with suppress(OSError, KeyError):
            if url.scheme == "https" and url.host and url.port:
                found.append((name, _end(url.host, url.port, config.registry_ca)))
    return found


def _end(host: str, port: int, bundle: Path | None) -> float:
    context = ssl.create_default_context()
    if bundle:
        context.load_verify_locations(bundle)
    with socket.create_connection((host, port), 10) as plain, context.wrap_socket(plain, server_hostname=host) as secured:
        return ssl.cert_time_to_seconds(str((secured.getpeercert() or {})["notAfter"]))


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="ascii").splitlines() if file.exists() else []


def run(link: str, seconds: float, *metrics: str) -> None:
    """Do it and tell it."""
    config, start, worked = configuration.load(None, None), time.monotonic(), False
    try:
        asyncio.run(main(config, link, seconds))
        worked = True
    finally:
        for file in metrics:
            tell(Path(file), worked=worked, seconds=time.monotonic() - start, ends=certificates(config))


if __name__ == "__main__":
    run(sys.argv[1], float(sys.argv[2]), *sys.argv[3:])
