"""What hostile peers send to the port: each is answered or cut off in time, and nothing of it reaches the log unclean."""

from __future__ import annotations

import asyncio
import gzip
import logging
from typing import TYPE_CHECKING

import pytest

from binder_onprem.web import site
from tests.unit.webstand import ADMIN, stand

if TYPE_CHECKING:
    from pathlib import Path


async def talk(port: int, data: bytes, seconds: float = 5) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(seconds):
            writer.write(data)
            return await reader.read(4096)
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n" + b"".join(b"X-%d: 1\r\n" % number for number in range(1000)) + b"\r\n",
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nabcde",
        b"GET /build/gh/a\x00b/c/d HTTP/1.1\r\nHost: h\r\n\r\n",
    ],
    ids=["header", "line", "headers", "tls", "smuggling", "nul"],
)
async def test_malformed_requests_are_400(tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with stand(tmp_path) as at:
        answer = await talk(at.port, data)
    assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
    assert b"Traceback" not in answer
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_slow_headers_are_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "IDLE_SECONDS", 0.5)
    async with stand(tmp_path) as at:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n")
        async with asyncio.timeout(3):
            assert await reader.read() == b""
        writer.transport.abort()


async def test_bodies_are_not_inflated(tmp_path: Path) -> None:
    bomb = gzip.compress(b"0" * 50_000_000)
    size = f"Content-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
    head = f"POST /api/images/prune HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {ADMIN}\r\n{size}"
    async with stand(tmp_path) as at:
        began = asyncio.get_running_loop().time()
        answer = await talk(at.port, head.encode() + bomb, 10)
        assert asyncio.get_running_loop().time() - began < 3
    assert answer.startswith(b"HTTP/1.1 ")


async def test_log_lines_are_clean(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "binder_onprem")
    async with stand(tmp_path) as at:
        await talk(
            at.port,
            b"GET /build/gh/a%0d%0aforged/b/c?build_token=planted HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: a\tb\r\nAccept: text/event-stream\r\n\r\n",
        )
    lines = [record for record in caplog.records if record.name.startswith("binder_onprem.web")]
    assert lines
    for record in lines:
        assert not any(
            "\n" in str(value) or "\r" in str(value) or "planted" in str(value) for value in record.__dict__.values() if isinstance(value, str)
        )
