"""The pages' languages: gettext catalogues read once at the start; English is the source.

``locale/<language>/LC_MESSAGES/messages.po`` is what translators edit; nothing is compiled beforehand.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import NullTranslations, Translations

from binder_onprem.web import accept
from binder_onprem.web.sentences import CONTEXT, Sentences

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aiohttp import web

SOURCE: Final = "en"
COOKIE: Final = "binder-lang"
YEAR: Final = 365 * 86400
"""Seconds that the cookie is kept."""
NAMES: Final = {"en": "English", "fr": "Français"}
_MARK: Final = f"{CONTEXT}\x04"
"""What gettext puts before the source of an entry with a context."""


@dataclass(frozen=True, slots=True)
class Catalogues:
    """Translations by language: of the pages, and of what the service says."""

    translations: Mapping[str, NullTranslations]
    sentences: Mapping[str, Sentences] = field(default_factory=dict)

    def choose(self, request: web.Request) -> str:
        """The request's language: ``?lang=``, else the cookie, else ``Accept-Language``, else English."""
        return self.chosen((request.query.get("lang"), request.cookies.get(COOKIE)), request.headers.get("Accept-Language"))

    def chosen(self, asked: Iterable[str | None], accepted: str | None) -> str:
        """The first of the languages asked for that there is, else what ``Accept-Language`` likes best, else English."""
        known = next((language for language in asked if language in self.translations), None)
        return known or accept.language(accepted, self.translations, SOURCE)

    def asked(self, request: web.Request) -> str:
        """The language that the request names itself with ``?lang=``, else English: for what programs read too."""
        named = request.query.get("lang", "")
        return named if named in self.translations else SOURCE

    def told(self, language: str, message: str) -> str:
        """A message of the service in a language; English where the catalogue has no entry for it."""
        sentences = self.sentences.get(language)
        return sentences.translate(message) if sentences else message

    def strings(self, language: str) -> dict[str, str]:
        """All translated strings of a language, for the scripts of a page."""
        return {source: text for source, text in _entries(self.translations[language]).items() if not source.startswith(_MARK)}


def _entries(translations: NullTranslations) -> dict[str, str]:
    catalogue = getattr(translations, "_catalog", {})
    return {source: text for source, text in catalogue.items() if isinstance(source, str) and source and isinstance(text, str)}


def read() -> Catalogues:
    """Read every catalogue of the package."""
    found: dict[str, NullTranslations] = {SOURCE: NullTranslations()}
    for folder in sorted(files("binder_onprem.web").joinpath("locale").iterdir(), key=lambda item: item.name):
        source = folder.joinpath("LC_MESSAGES", "messages.po")
        if source.is_file():
            catalogue, compiled = read_po(io.BytesIO(source.read_bytes()), locale=folder.name), io.BytesIO()
            write_mo(compiled, catalogue)
            compiled.seek(0)
            found[folder.name] = Translations(compiled)
    said = {
        language: Sentences({source.removeprefix(_MARK): text for source, text in _entries(translations).items() if source.startswith(_MARK)})
        for language, translations in found.items()
    }
    return Catalogues(found, said)
