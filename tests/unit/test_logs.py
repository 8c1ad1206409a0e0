"""One physical line per event, and no credential in it."""

import json
import logging

import pytest

from binder_onprem import logs


def line(message: str, **fields: object) -> dict[str, object]:
    record = logging.makeLogRecord({"name": "binder_onprem.x", "levelname": "INFO", "msg": message, **fields})
    text = logs.JsonLines().format(record)
    assert "\n" not in text
    return json.loads(text)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "text",
    [
        "GET /lab?token=CANARY HTTP/1.1",
        "https://user:CANARY@git.example/repo",
        "https://CANARY@git.example/repo",
        "Authorization: Bearer CANARYCANARY",
        'headers {"Authorization": "token CANARY"}',
        "build_token=CANARY&x=1",
        "password: CANARY",
        "PRIVATE_TOKEN='CANARY'",
        "proxy basic Q0FOQVJZCANARY==",
    ],
)
def test_credentials_do_not_reach_the_log(text: str) -> None:
    assert "CANARY" not in json.dumps(line(text, detail={"deep": [text]}))


def test_a_hostile_field_cannot_forge_a_line_nor_fill_the_journal() -> None:
    written = line("x", spec='a\n{"event": "forged"}\r\n' + "y" * 100_000)
    assert len(str(written["spec"])) < logs.LIMIT + 10


def test_ordinary_text_stays_as_it_is() -> None:
    assert line("build done", image="127.0.0.1:8589/binder/x@sha256:00", seconds=1.5) | {"time": 0} == {
        "time": 0,
        "level": "info",
        "logger": "binder_onprem.x",
        "event": "build done",
        "image": "127.0.0.1:8589/binder/x@sha256:00",
        "seconds": 1.5,
    }


def test_the_launch_is_told() -> None:
    with logs.of_launch("ab12"):
        assert line("x")["launch"] == "ab12"
    assert "launch" not in line("x")
