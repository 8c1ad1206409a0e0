"""A container's multiplexed output as lines of text: bounded while reading, whatever the bytes are.

Used by `containers`. Holds at most one cut line per stream, so a line of a gigabyte costs 8 KiB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

LINE_BYTES: Final = 8192
CUT: Final = " … (line cut)"
HEADER: Final = 8


class Line:
    """One line of one stream while it grows."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._cut = False

    def feed(self, data: bytes | memoryview) -> Iterator[str]:
        """Add bytes; yields the lines that they end."""
        *ended, rest = bytes(data).split(b"\n")
        for piece in ended:
            self._add(piece)
            yield self.take()
        self._add(rest)

    def take(self) -> str:
        """The line so far; starts the next one. A carriage return overwrites what stands before it, as on a terminal."""
        raw = bytes(self._bytes).rstrip(b"\r").rpartition(b"\r")[2]
        text = raw.decode("utf-8", "replace") + (CUT if self._cut else "")
        self._bytes.clear()
        self._cut = False
        return text

    def __bool__(self) -> bool:
        """Whether something stands in it."""
        return bool(self._bytes)

    def _add(self, piece: bytes) -> None:
        room = LINE_BYTES - len(self._bytes)
        self._bytes += piece[:room]
        self._cut = self._cut or len(piece) > room


class Lines:
    """Takes the stream apart: 8 bytes of header (stream, zeros, length), then that many bytes."""

    def __init__(self) -> None:
        self._streams: dict[int, Line] = {}
        self._header = bytearray()
        self._left = 0
        self._line = Line()

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Add bytes as they came; yields the lines that they end."""
        view = memoryview(chunk)
        while view:
            if not self._left:
                view = self._read_header(view)
                continue
            piece, view = view[: self._left], view[self._left :]
            self._left -= len(piece)
            yield from self._line.feed(piece)

    def end(self) -> Iterator[str]:
        """The last lines, which no line feed ended."""
        yield from (line.take() for line in self._streams.values() if line)

    def _read_header(self, view: memoryview) -> memoryview:
        missing = HEADER - len(self._header)
        self._header += view[:missing]
        if len(self._header) == HEADER:
            self._left = int.from_bytes(self._header[4:], "big")
            self._line = self._streams.setdefault(self._header[0], Line())
            self._header.clear()
        return view[missing:]
