"""What the application carries for its handlers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from binder_onprem.model import Client
    from binder_onprem.web.admin.live import Live
    from binder_onprem.web.admin.signin import SignIns
    from binder_onprem.web.cookies import Seal
    from binder_onprem.web.health import Health
    from binder_onprem.web.locale import Catalogues
    from binder_onprem.web.pages import Pages
    from binder_onprem.web.site import Site
    from binder_onprem.web.stream import Streams
    from binder_onprem.web.tokens import BuildTokens

CLIENT: web.RequestKey[Client] = web.RequestKey("client")
"""Of a request: who asks, once that was looked up for a page."""
SITE: web.AppKey[Site] = web.AppKey("site")
STREAMS: web.AppKey[Streams] = web.AppKey("streams")
SEAL: web.AppKey[Seal] = web.AppKey("seal")
TOKENS: web.AppKey[BuildTokens] = web.AppKey("tokens")
HEALTH: web.AppKey[Health] = web.AppKey("health")
CATALOGUES: web.AppKey[Catalogues] = web.AppKey("catalogues")
SIGN_INS: web.AppKey[SignIns] = web.AppKey("sign_ins")
LIVE: web.AppKey[Live] = web.AppKey("live")
PAGES: web.AppKey[Pages] = web.AppKey("pages")
