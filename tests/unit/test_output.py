from __future__ import annotations

from binder_onprem.engine.output import CUT, LINE_BYTES, Lines


def frame(data: bytes, stream: int = 1) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def lines_of(raw: bytes, size: int) -> list[str]:
    lines = Lines()
    got = [line for start in range(0, len(raw), size) for line in lines.feed(raw[start : start + size])]
    return got + list(lines.end())


def test_lines_are_the_same_however_the_bytes_arrive() -> None:
    raw = frame(b"one\ntw") + frame(b"o\n\nthree")
    assert {tuple(lines_of(raw, size)) for size in (1, 2, 3, 7, 8, 9, 1000)} == {("one", "two", "", "three")}


def test_streams_are_not_mixed_within_a_line() -> None:
    assert lines_of(frame(b"out") + frame(b"err\n", 2) + frame(b"put\n"), 5) == ["err", "output"]


def test_a_long_line_is_cut_and_costs_no_memory() -> None:
    lines = Lines()
    for _ in range(1000):
        assert not list(lines.feed(frame(b"x" * 8192)))
    [line] = lines.feed(frame(b"\n"))
    assert line == "x" * LINE_BYTES + CUT
    assert list(lines.feed(frame(b"next\n"))) == ["next"]


def test_nul_and_invalid_utf8_survive() -> None:
    assert lines_of(frame(b"a\0b\xff\n"), 100) == ["a\0b\ufffd"]


def test_a_carriage_return_overwrites() -> None:
    assert lines_of(frame(b"10%\r50%\r100%\r\n"), 4) == ["100%"]


def test_empty_frames_mean_nothing() -> None:
    assert lines_of(frame(b"") + frame(b"a\n") + frame(b""), 3) == ["a"]
