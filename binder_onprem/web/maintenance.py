"""A maintenance in words: the administrator's in the reader's language, or the usual ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from binder_onprem.errors import UnderMaintenance
from binder_onprem.rules import NOTHING_LAUNCHED
from binder_onprem.ruling import Mode
from binder_onprem.web.keys import CATALOGUES, SITE

if TYPE_CHECKING:
    from aiohttp import web

USUAL: Final = {
    Mode.NOTICE: "",
    Mode.BUILDS: "This site is under maintenance: no environment is built until it is over. What is built already starts as usual.",
    Mode.LAUNCHES: NOTHING_LAUNCHED,
}


def words(request: web.Request, language: str) -> str:
    """What people read of the maintenance that is announced or in force; "" without one."""
    found = request.app[SITE].line.rules.maintenance
    if found is None:
        return ""
    return found.told(language) or request.app[CATALOGUES].told(language, USUAL[found.mode])


def instead(request: web.Request, language: str, code: str) -> str:
    """The administrator's words in this language where an error is that nobody launches now; else ""."""
    return words(request, language) if code == UnderMaintenance.code else ""
