"""The pages for people: the form, a launch, errors, what this service is. Rendered on the server; scripts only add to them."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlencode

from aiohttp import web
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from binder_onprem import __version__, choosing
from binder_onprem.choice import Choice, parse
from binder_onprem.errors import BinderError, NotFound
from binder_onprem.model import Role
from binder_onprem.web import accept, agreed, choices, clients, links, locale, maintenance, target
from binder_onprem.web.build import origin
from binder_onprem.web.keys import CATALOGUES, CLIENT, PAGES, SEAL, SITE, TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from binder_onprem.config import Config
    from binder_onprem.model import Client
    from binder_onprem.popular import Popular

RELOAD: Final = 3
"""Seconds between two looks of the proxy's error page for another answer; the hub looks every two whether a server is gone."""
NO_SERVER: Final = 424
"""JupyterHub's status for the address of a server that does not run; JupyterLab knows it."""
FIELDS: Final = ("provider", "repo", "ref", "path", "kind")
"""Of the form."""
LABEL: Final = "Binder"
"""What a badge is called in the markup, as on BinderHub's."""
ENDED: Final = "This session has ended. Launch its repository again."


@dataclass(frozen=True, slots=True)
class Pages:
    """The templates, once for each language."""

    environments: Mapping[str, Environment]


def load(catalogues: locale.Catalogues) -> Pages:
    """Read the templates."""
    return Pages({language: _environment(catalogues, language) for language in catalogues.translations})


def _environment(catalogues: locale.Catalogues, language: str) -> Environment:
    environment = Environment(
        loader=PackageLoader("binder_onprem.web"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        extensions=["jinja2.ext.i18n"],
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The extension adds this method at run time.
    environment.install_gettext_translations(catalogues.translations[language], newstyle=True)  # type: ignore[attr-defined]
    environment.filters["script_json"] = script_json
    environment.filters["moment"] = moment
    return environment


def script_json(value: object) -> Markup:
    """JSON that is safe inside a script element: no markup can begin in it."""
    text = json.dumps(value, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - escaped just above


def policy(nonce: str) -> str:
    """Content security policy of a page: its own scripts by nonce, nothing from elsewhere, nothing from a session on the same origin."""
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; connect-src 'self'; "
        "manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
    )


def render(request: web.Request, template: str, status: int = 200, **context: Any) -> web.Response:
    """A page in the request's language."""
    site, catalogues = request.app[SITE], request.app[CATALOGUES]
    language, nonce = catalogues.choose(request), secrets.token_urlsafe(16)
    shared = {
        "account": _account(request),
        "base": site.config.listen.base_url,
        "banner": Markup(site.config.web.banner),  # noqa: S704 - the administrator's own HTML
        "password_page": f"{site.config.hub_base_url}hub/change-password" if site.config.auth.kind == "native" else "",
        "notice": maintenance.words(request, language),
        "language": language,
        "languages": [(tag, locale.NAMES.get(tag, tag)) for tag in catalogues.translations],
        "query": [(name, value) for name, value in request.query.items() if name != "lang"],
        "urlencode": urlencode,
        "nonce": nonce,
        "strings": catalogues.strings(language),
        "version": __version__,
    }
    text = request.app[PAGES].environments[language].get_template(template).render(shared | context)
    headers = {"Content-Security-Policy": policy(nonce), "Content-Language": language, "Cache-Control": "no-store", "Vary": "Accept-Language, Cookie"}
    response = web.Response(text=text, status=status, content_type="text/html", headers=headers)
    if shared["account"]:
        # The page holds what proves that a request is ours: no other page, of a session on this origin, gets hold of its window.
        response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
        response.headers["X-Frame-Options"] = "DENY"
    if request.query.get("lang") in catalogues.translations:
        secure = clients.public_url(request, site.config).startswith("https:")
        response.set_cookie(
            locale.COOKIE, language, path=site.config.listen.base_url, max_age=locale.YEAR, samesite="Lax", httponly=True, secure=secure
        )
    return response


def told(request: web.Request, message: str) -> str:
    """A message of the service in the request's language."""
    catalogues = request.app[CATALOGUES]
    return catalogues.told(catalogues.choose(request), message)


def _account(request: web.Request) -> dict[str, Any] | None:
    """Who has logged in, for the head of a page; `proof` goes with its forms."""
    client: Client | None = request.get(CLIENT)
    if client is None or client.user is None:
        return None
    login = request.app[SEAL].login(request)
    return {
        "name": client.user,
        "proof": request.app[SEAL].proof(login) if login else "",
        "admin": Role.ADMIN in client.roles,
        "projects": request.app[SITE].config.projects.enabled,
    }


def moment(seconds: float | None) -> str:
    """Unix seconds as date and time, UTC."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def page_config(request: web.Request) -> dict[str, Any]:
    """BinderHub's ``window.pageConfig`` without a build token."""
    site = request.app[SITE]
    base = site.config.listen.base_url
    return {
        "aboutMessage": site.config.web.about,
        "badgeBaseUrl": clients.public_url(request, site.config),
        "bannerHtml": site.config.web.banner,
        "baseUrl": base,
        "binderVersion": __version__,
        "logoUrl": f"{base}static/logo.svg",
        "logoWidth": "320px",
        "repoProviders": site.displays,
    }


def _words(request: web.Request) -> Callable[[str], str]:
    catalogues = request.app[CATALOGUES]
    return catalogues.translations[catalogues.choose(request)].gettext


async def index(request: web.Request) -> web.Response:
    """The form; with what it was sent with, where a browser without JavaScript asks for the link and the badges."""
    config = page_config(request)
    given = {name: request.query.get(name, "")[: target.LIMIT] for name in FIELDS}
    popular = [_named(config["repoProviders"], one) for one in request.app[SITE].popular()]
    chosen = parse(request.query.items())
    offered = choices.offered(chosen, await clients.identify(request), request.app[SITE].config, _words(request))
    shown: dict[str, Any] = {"given": given, "shared": _shared(config, given, chosen), "popular": [one for one in popular if one]}
    return render(request, "index.html", config=config, offered=offered, chosen=chosen, **shown)


def _shared(config: dict[str, Any], given: Mapping[str, str], chosen: Choice) -> dict[str, str] | None:
    """Link and badges of a filled-in form."""
    shown = next((item for item in config["repoProviders"] if item["id"] == given["provider"]), None)
    if shown is None or not given["repo"].strip():
        return None
    site = config["badgeBaseUrl"]
    path = links.launch_path(shown, given["repo"], given["ref"], given["path"], given["kind"] or "lab")
    url = site + links.with_choice(path, chosen)
    return {"link": url, **links.badges(url, f"{site}badge_logo.svg", LABEL)}


def _named(displays: list[dict[str, Any]], one: Popular) -> dict[str, Any] | None:
    """A popular repository for people's eyes."""
    shown = next((item for item in displays if item["id"] == one.provider), None)
    if shown is None:
        return None
    name, ref = target.Target(one.provider, one.path).named(whole=shown["repo"].get("urlEncode", False))
    return {"path": f"v2/{one.provider}/{one.path}", "provider": shown["displayName"], "name": name, "ref": ref, "launches": one.launches}


async def follow_form(request: web.Request) -> web.Response:
    """Where the form leads without JavaScript: on to the link that it describes."""
    query, site = request.query, request.app[SITE]
    shown = next((item for item in site.displays if item["id"] == query.get("provider")), None)
    if shown is None:
        raise NotFound("There is no such kind of repository here.")
    path = links.launch_path(shown, query.get("repo", ""), query.get("ref", ""), query.get("path", ""), query.get("kind", "file"))
    return redirect(site.config.listen.base_url + links.with_choice(path, parse(query.items())))


def redirect(location: str) -> web.Response:
    """302 to a path of ours; header-safe and kept as it is encoded."""
    return web.Response(status=302, headers={"Location": quote(location, safe="/%?&=+:;,@#" + links.SAFE)})


async def launch(request: web.Request) -> web.Response:
    """``/v2/<provider>/<spec>``: what a link shows."""
    site = request.app[SITE]
    config = site.config
    link = target.of_request(request, config.listen.base_url)
    shown = next((item for item in site.displays if item["id"] == link.provider), None)
    if shown is None:
        raise NotFound("There is no such kind of repository here. Check the link, or make a new one.")
    name, ref = link.named(whole=shown["repo"].get("urlEncode", False)) if shown["ref"]["enabled"] else (link.display, "")
    chosen = parse(request.query.items())
    client = await clients.identify(request)
    asked = choosing.checked(chosen, client, config.choice, config.projects)
    token = request.app[TOKENS].issue(link.audience, origin(request), login=clients.login_name(request))
    build = f"{config.listen.base_url}build/{link.audience}?{urlencode({**dict(chosen.pairs), 'build_token': token, 'resume': 'true'})}"
    opening = {name: request.query[name] for name in ("labpath", "filepath", "urlpath") if name in request.query}
    about_link = {
        "config": page_config(request) | {"buildToken": token},
        "title": f"{shown['displayName']}: {link.display}",
        "name": name,
        "ref": ref,
        "provider": shown["displayName"],
        "image": f"{clients.public_url(request, config)}logo_social.png",
    }
    words = _words(request)
    if unsure := await agreed.unsure(request, client, link.audience, chosen.project):
        kept = [(key, value) for key, value in request.query.items() if key not in ("lang", agreed.PARAMETER)]
        return render(request, "allow.html", **about_link, project=unsure, link=link.audience, wanted=urlencode(kept))
    if choices.asks(chosen, client, config):
        kept = [(key, value) for key, value in request.query.items() if key not in ("lang", "profile", "data")]
        said = choices.told(replace(chosen, data=()), config, words)
        return render(request, "choose.html", **about_link, kept=kept, chosen=said, **choices.offered(chosen, client, config, words))
    launching = {"build": build, "base": config.listen.base_url, "opening": opening, "choice": chosen.query}
    return render(request, "launch.html", **about_link, launch=launching, chosen=choices.told(asked, config, words))


async def about(request: web.Request) -> web.Response:
    """Who runs this and what it is."""
    return render(request, "about.html", about=Markup(request.app[SITE].config.web.about))  # noqa: S704 - the administrator's own HTML


async def repo(request: web.Request) -> web.Response:
    """``/repo/<user>/<repository>[/path]``, BinderHub's oldest links."""
    base, names = request.app[SITE].config.listen.base_url, request.match_info
    path = names.get("path", "").strip("/")
    query = "?" + urlencode({"urlpath": f"/{path}"}) if path else ""
    return redirect(f"{base}v2/gh/{quote(names['user'], safe='')}/{quote(names['repo'], safe='')}/HEAD{query}")


async def ended(request: web.Request) -> web.Response:
    """Any path of a session that has no route any more: a page for a person who comes by a link, JSON for everything else.

    JupyterHub's own pages are nobody's: they are not there.
    """
    if not _session(request.app[SITE].config, request.raw_path):
        raise web.HTTPNotFound
    navigation = request.method in ("GET", "HEAD") and not request.headers.get("Upgrade")
    if navigation and not _api(request.raw_path) and accept.html_preferred(",".join(request.headers.getall("Accept", []))):
        return render(request, "ended.html", status=NO_SERVER, session=True, again=0)
    return _ended_json(NO_SERVER)


async def proxy_error(request: web.Request) -> web.Response:
    """What the proxy shows while its route leads to a server that does not answer (its error target): ``/_error/<status>?url=<path asked for>``.

    The proxy asks in its own name: language and form come with the page's next load, when the hub has taken the route away.
    """
    status, asked = int(request.match_info["status"]), request.query.get("url", "")
    session = _session(request.app[SITE].config, asked)
    if session and _api(asked):
        return _ended_json(status)
    return render(request, "ended.html", status=status, session=session, again=RELOAD)


def _session(config: Config, path: str) -> bool:
    return unquote(path).startswith(f"{unquote(config.hub_base_url)}user/")


def _api(path: str) -> bool:
    return "/api/" in path.partition("?")[0]


def _ended_json(status: int) -> web.Response:
    body = {"status": status, "code": "session_ended", "message": ENDED, "retryable": False}
    return web.json_response(body, status=status, headers={"Cache-Control": "no-store"})


def error_page(request: web.Request, error: BinderError, status: int, headers: dict[str, str]) -> web.Response:
    """An error as a page."""
    # Not by the template: a message may hold a percent sign, which its gettext would read.
    message = maintenance.instead(request, request.app[CATALOGUES].choose(request), error.code) or told(request, error.message)
    response = render(request, "error.html", status=status, message=message, number=status, retryable=error.retryable)
    response.headers.update(headers)
    return response
