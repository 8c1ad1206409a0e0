"""A launch through the public port, a calculation by its kernel, its end; prints what it took. For the Binder's own Python."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from typing import Any

import aiohttp

from binder_onprem import config as configuration
from binder_onprem.cli.client import connected
from binder_onprem.cli.launch import spec_of
from binder_onprem.errors import BinderError
from binder_onprem.host.samples import sample_link

CODE, RESULT = "print(6 * 7)", "42"


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


async def main(link: str, seconds: float) -> None:
    """Do it; the session ends however it goes."""
    config = configuration.load(None, None)
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


asyncio.run(main(sys.argv[1], float(sys.argv[2])))
