"""Logging in, where the site wants it: JupyterHub's own pages and authenticators, roles, and the daemon as the hub's OAuth client.

`config_file` calls `configure`. The hub stays the one authority: it knows who somebody is and, by roles with scopes of ours, what she may do; the
daemon asks it with the token that a log-in or a program brings. Of the hub's pages the public port has only those that a log-in needs.

The rights of people at the hub are to be known to the daemon (``access:services!service=binder``), to manage their own tokens, and our scopes;
none on servers or users. Nobody is the hub's administrator.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Final

from binder_onprem.config.auth import Accounts, LdapAccounts, NativeAccounts, OidcAccounts, PamAccounts
from binder_onprem.hub import authenticators, pages
from binder_onprem.hub.discovery import discovered
from binder_onprem.hub.outside import Outside
from binder_onprem.hub.scopes import ACCESS, SCOPE
from binder_onprem.model import Role

if TYPE_CHECKING:
    from pathlib import Path

    from binder_onprem.config import Config

SELF: Final = ("read:users:name!user", "read:users:groups!user", "tokens!user")
"""Rights of a person on herself: a log-in's token needs the first two, or the hub makes none."""
PAGES: Final = ("login", "logout", "static", "api/oauth2/authorize")
"""What every kind of log-in needs of the hub on the public port."""
DAY: Final = 86400.0


def configure(c: Any, config: Config, accounts: Accounts) -> None:
    """Set what a log-in needs on JupyterHub's configuration object `c`."""
    hub = c.JupyterHub
    hub.services = [*hub.services, *({"name": one.name, "api_token": _secret(one.token_file), "display": False} for one in accounts.services)]
    hub.custom_scopes = {f"{SCOPE}{role}": {"description": (role.__doc__ or role).splitlines()[0]} for role in Role}
    hub.load_roles = [*(role for role in hub.load_roles if role["name"] != "user"), *roles(accounts)]
    hub.default_url = config.listen.base_url
    hub.cookie_max_age_days = accounts.remember / DAY
    hub.oauth_token_expires_in = int(accounts.remember)
    pages.install(c, config)
    if config.public_url.startswith("https:"):
        hub.tornado_settings["cookie_options"] = {"secure": True}
    authenticator = c.Authenticator
    authenticator.allow_all = True
    authenticator.post_auth_hook = authenticators.admitted
    authenticator.auth_refresh_age = accounts.refresh
    authenticator.auth_refresh_strict = True  # who cannot be asked about any more has to log in again, programs of hers included
    opened = (*PAGES, *_authenticator(c, config, accounts))
    target = f"http://127.0.0.1:{config.hub_port}"
    c.Proxy.extra_routes = {f"{config.hub_base_url}hub/{page}/": target for page in opened}


def roles(accounts: Accounts) -> list[dict[str, Any]]:
    """The hub's roles that say who may do what; an administrator may do everything."""
    given = {role: [f"{SCOPE}{one}" for one in (Role if role is Role.ADMIN else (role,))] for role in Role}
    everybody = sorted({scope for role in Role if "everybody" in getattr(accounts.roles, role) for scope in given[role]})
    named = [
        {
            "name": f"binder-{role}",
            "scopes": given[role],
            "users": accounts.roles.members(role, "user"),
            "groups": accounts.roles.members(role, "group"),
            "services": [one.name for one in accounts.services if role in one.roles],
        }
        for role in Role
    ]
    access = {"name": "binder-access", "scopes": [ACCESS], "services": [one.name for one in accounts.services]}
    return [{"name": "user", "scopes": [ACCESS, *SELF, *everybody]}, access, *named]


def _authenticator(c: Any, config: Config, accounts: Accounts) -> tuple[str, ...]:
    """Configure the kind's; returns what more of the hub has to be reached."""
    match accounts:
        case OidcAccounts():
            _oidc(c, config, accounts)
            return ("oauth_login", "oauth_callback")
        case LdapAccounts():
            _ldap(c, config, accounts)
            return ()
        case PamAccounts():
            from binder_onprem.hub.authenticators.pam import Pam  # noqa: PLC0415 - each brings libraries of its own

            c.JupyterHub.authenticator_class = Pam
            c.Authenticator.manage_groups = True
            c.PAMAuthenticator.service = accounts.service
            c.PAMAuthenticator.open_sessions = False
            return ()
        case NativeAccounts():
            from binder_onprem.hub.authenticators.native import Native  # noqa: PLC0415 - same

            c.JupyterHub.authenticator_class = Native
            c.JupyterHub.template_vars |= {"binder_signup": accounts.signup != "closed", "binder_password_length": accounts.password_length}
            c.NativeAuthenticator.open_signup = accounts.signup == "open"
            c.NativeAuthenticator.enable_signup = accounts.signup != "closed"
            c.NativeAuthenticator.minimum_password_length = accounts.password_length
            c.NativeAuthenticator.check_common_password = True
            c.NativeAuthenticator.allowed_failed_logins = 5
            c.NativeAuthenticator.seconds_before_next_try = 60
            return ("change-password", *(() if accounts.signup == "closed" else ("signup",)))
        case _:
            raise ValueError(f"no authenticator for {type(accounts).__name__}")


def _oidc(c: Any, config: Config, accounts: OidcAccounts) -> None:
    outside = Outside.of(config)
    found = discovered(config, accounts.issuer, outside)
    from binder_onprem.hub.authenticators.openid import OpenId  # noqa: PLC0415 - as above

    c.JupyterHub.authenticator_class = OpenId
    OpenId.outside = outside
    if accounts.refresh:  # with the log-in's tokens, which are kept for that
        c.Authenticator.enable_auth_state = True
        c.CryptKeeper.keys = [_secret(config.secrets / "hub-state-key")]
    oauth = c.GenericOAuthenticator
    oauth.client_id, oauth.client_secret = accounts.client_id, _secret(accounts.client_secret_file)
    oauth.authorize_url, oauth.token_url, oauth.userdata_url = found.authorize, found.token, found.userinfo
    oauth.oauth_callback_url = f"{config.public_url.removesuffix(config.listen.base_url)}{config.hub_base_url}hub/oauth_callback"
    oauth.username_claim = accounts.username_claim
    oauth.scope = list(accounts.scopes)
    oauth.auto_login = True
    oauth.auto_login_oauth2_authorize = True
    if accounts.groups_claim is not None:
        oauth.manage_groups = True
        oauth.auth_state_groups_key = authenticators.groups_of_claim(accounts.groups_claim)
    if accounts.logout_url is not None:
        oauth.logout_redirect_url = accounts.logout_url


def _ldap(c: Any, config: Config, accounts: LdapAccounts) -> None:
    from binder_onprem.hub.authenticators.ldap import Ldap  # noqa: PLC0415 - same

    c.JupyterHub.authenticator_class = Ldap
    ldap = c.LDAPAuthenticator
    ldap.server_address, ldap.server_port = accounts.address
    ldap.tls_strategy = accounts.tls
    bundle = accounts.ca_file or config.network.ca_file or ssl.get_default_verify_paths().cafile
    # Without this the library trusts any certificate.
    ldap.tls_kwargs = {"validate": ssl.CERT_REQUIRED, "ca_certs_file": str(bundle)}
    ldap.valid_username_regex = r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,199}\Z"
    if accounts.search_base is not None:
        ldap.lookup_dn = True
        ldap.user_search_base = accounts.search_base
        ldap.lookup_dn_user_dn_attribute = accounts.search_attribute
        ldap.lookup_dn_search_filter = "({login_attr}={login})"
    if accounts.search_user is not None and accounts.search_password_file is not None:
        ldap.lookup_dn_search_user = accounts.search_user
        ldap.lookup_dn_search_password = _secret(accounts.search_password_file)
    ldap.bind_dn_template = list(accounts.bind_dn)
    ldap.user_attribute = accounts.search_attribute
    # allow_all lets people in; the list makes the authenticator look which of these groups they are in.
    ldap.allowed_groups = list(accounts.groups.values())
    ldap.group_attributes = ["1.1"]  # none: whether there is an entry is all that is asked
    c.Authenticator.manage_groups = True
    Ldap.names = {dn: name for name, dn in accounts.groups.items()}


def _secret(file: Path) -> str:
    return file.read_text(encoding="utf-8").strip()
