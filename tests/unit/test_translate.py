"""What translators start from."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from babel.messages.pofile import read_po

from tests import translate

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_new_language_has_every_entry_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    french = (translate.WEB / "locale" / "fr" / "LC_MESSAGES" / "messages.po").read_text(encoding="utf-8")
    assert list(translate.missing(french)) == []
    pages = translate.of_pages()
    monkeypatch.setattr(translate, "of_pages", lambda: pages)
    monkeypatch.setattr(translate, "WEB", tmp_path)
    translate.main("de")
    file = tmp_path / "locale" / "de" / "LC_MESSAGES" / "messages.po"
    catalogue = read_po(BytesIO(file.read_bytes()), locale="de", abort_invalid=True)
    assert {message.id for message in catalogue if message.id and not message.context} == pages
    assert len([message for message in catalogue if message.context == "message"]) > 200
    before = file.read_text(encoding="utf-8").replace('msgid "Log"\nmsgstr ""', 'msgid "Log"\nmsgstr "Protokoll"')
    file.write_text(before, encoding="utf-8")
    translate.main()
    assert file.read_text(encoding="utf-8") == before
