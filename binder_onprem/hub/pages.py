"""JupyterHub's own pages, as people meet them while they log in: the site's looks and languages; nothing in them is of another host, nothing runs.

`logins` installs it. The hub tells its templates nothing of the request, so the one property that all its handlers fill them from is extended.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from jupyterhub.handlers import BaseHandler

from binder_onprem.web import locale

if TYPE_CHECKING:
    from binder_onprem.config import Config

POLICY: Final = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
SAID: Final = (
    "Invalid username or password",
    "Login form invalid or expired. Try again.",
    "A user name like yours cannot be used here. Ask the administrator.",
    "The directory of accounts does not answer. Try again in a moment.",
    "Your information has been sent to the admin.",
    "The signup was successful! You can now go to the home page and log in to the system.",
    "Something went wrong!\nIt appears that this username is already in use. Please try again with a different username.",
    "Your password did not match the confirmation. Please try again.",
    (
        "Something went wrong!\nBe sure your username does not contain spaces, commas or slashes, your password has at least {} characters and is "
        "not too common."
    ),
    "Your current password was incorrect. Please try again.",
    "Your new password didn't match the confirmation. Please try again.",
    "Your password has been changed successfully!",
    "Something went wrong!\nBe sure your new password has at least {} characters and is not too common.",
    "Bad Request",
    "Forbidden",
    "Method Not Allowed",
    "Internal Server Error",
    "Service Unavailable",
    "OAuth state missing from cookies",
    "OAuth state mismatch",
    "OAuth state missing from URL",
    "'_xsrf' argument missing from POST",
)
"""What JupyterHub and its authenticators say to people on these pages; ``{}`` is a value, as in the catalogues."""
_PLAIN: Final = BaseHandler.template_namespace


def install(c: Any, config: Config) -> None:
    """Set the pages on JupyterHub's configuration object `c`."""
    catalogues = locale.read()

    def namespace(handler: BaseHandler) -> dict[str, Any]:
        shared: dict[str, Any] = _PLAIN.fget(handler)
        return shared | _words(handler, catalogues, config)

    BaseHandler.template_namespace = property(namespace)
    c.JupyterHub.template_paths = [str(Path(__file__).parent / "templates")]
    c.JupyterHub.template_vars = {"binder_url": config.listen.base_url}
    c.JupyterHub.tornado_settings["headers"] |= {
        "Content-Security-Policy": POLICY,
        "Referrer-Policy": "same-origin",
        # A session has our origin: a page of one that opens the log-in must not read what is typed there.
        "Cross-Origin-Opener-Policy": "same-origin",
    }


def _words(handler: Any, catalogues: locale.Catalogues, config: Config) -> dict[str, Any]:
    """What a template needs to speak the request's language; remembers one that the request chooses."""
    # As bytes: what is not UTF-8 is an error to whoever reads it as text, on the page of that error, too.
    sent: dict[str, list[bytes]] = handler.request.query_arguments
    asked = sent.get("lang", [b""])[-1].decode(errors="replace")
    language = catalogues.chosen((asked, handler.get_cookie(locale.COOKIE)), handler.request.headers.get("Accept-Language"))
    if asked == language:
        secure = config.public_url.startswith("https:")
        attributes = {"max_age": locale.YEAR, "samesite": "Lax", "httponly": True, "secure": secure}
        handler.set_cookie(locale.COOKIE, language, path=config.listen.base_url, **attributes)
    handler.set_header("Content-Language", language)
    handler.set_header("Vary", "Accept-Language, Cookie")
    kept = [(name.encode("latin-1"), value) for name, values in sent.items() if name != "lang" for value in values]
    return {
        "_": catalogues.translations[language].gettext,
        "told": lambda message: catalogues.told(language, str(message)),
        "language": language,
        "languages": [(tag, locale.NAMES.get(tag, tag)) for tag in catalogues.translations],
        "query": lambda tag: urlencode([*kept, (b"lang", tag)]),
    }
