"""A kernel in a session, spoken to as JupyterLab does: REST to start it, a websocket to run code."""

from __future__ import annotations

import json
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Kernel:
    """One kernel of one session."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str, kernel_id: str) -> None:
        self._session, self._url, self._token, self.id = session, url, token, kernel_id

    async def run(self, code: str, seconds: float = 60) -> str:
        """What the code prints, or its error."""
        async with self.channel() as channel:
            return await execute(channel, code, seconds)

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A websocket to it, kept open."""
        address = f"{self._url.replace('http', 'ws', 1)}api/kernels/{self.id}/channels?token={self._token}"
        async with self._session.ws_connect(address, timeout=aiohttp.ClientWSTimeout(ws_close=5)) as channel:
            yield channel

    async def state(self) -> str:
        """``busy``, ``idle``, …; "" when the session's server is not reached under its public address."""
        try:
            async with self._session.get(f"{self._url}api/kernels/{self.id}", headers={"Authorization": f"token {self._token}"}) as answer:
                return str((await answer.json())["execution_state"]) if answer.status == 200 else ""
        except aiohttp.ClientError:
            return ""

    async def answers(self) -> bool:
        """Whether the session's server is reached under its public address."""
        return bool(await self.state())


async def execute(channel: aiohttp.ClientWebSocketResponse, code: str, seconds: float = 60) -> str:
    """What the code prints, or its error, over a websocket that is open already."""
    message_id = uuid.uuid4().hex
    header = {"msg_id": message_id, "msg_type": "execute_request", "session": uuid.uuid4().hex, "username": "", "version": "5.3", "date": ""}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False, "stop_on_error": True}
    await channel.send_json({"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell", "buffers": []})
    return await _output(channel, message_id, seconds)


async def _output(channel: Any, message_id: str, seconds: float) -> str:
    text = ""
    while True:
        message = json.loads((await channel.receive(timeout=seconds)).data)
        if message["parent_header"].get("msg_id") != message_id:
            continue
        match message["msg_type"]:
            case "stream":
                text += message["content"]["text"]
            case "error":
                text += message["content"]["ename"] + ": " + message["content"]["evalue"]
            case "status" if message["content"]["execution_state"] == "idle":
                return text
            case _:
                pass


@asynccontextmanager
async def kernel(ready: dict[str, Any]) -> AsyncIterator[Kernel]:
    """Start a kernel in the session of a `ready` event."""
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{ready['url']}api/kernels", headers={"Authorization": f"token {ready['token']}"}) as answer:
            assert answer.status == 201, await answer.text()
            kernel_id = (await answer.json())["id"]
        yield Kernel(session, ready["url"], ready["token"], kernel_id)
