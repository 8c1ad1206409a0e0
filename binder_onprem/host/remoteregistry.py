"""Whether a registry on another machine answers over TLS, takes both accounts, and lets only one of them push. Asked by `check`; leaves nothing."""

from __future__ import annotations

import ssl
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin
from urllib.request import Request

from binder_onprem.errors import RegistryUnavailable
from binder_onprem.host import registryaccess
from binder_onprem.host.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from urllib.request import OpenerDirector

    from binder_onprem.config import Config

TIMEOUT: Final = 5
SUBJECT: Final = "registry"
PROBE: Final = "binder/probe"
"""Repository of an upload that is begun and given up at once: nothing of it is kept."""
REFUSED: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.METHOD_NOT_ALLOWED})


def findings(config: Config) -> Iterator[Finding]:
    """One finding for each fault; one in all if there is none; none where the registry is ours."""
    if config.remote is None:
        return
    try:
        faults = list(_faults(config, registryaccess.opener(config)))
    except RegistryUnavailable as error:
        faults = [Finding("fail", SUBJECT, error.message, "Set registry.ca_file to a PEM bundle.")]
    yield from faults
    if not any(fault.level == "fail" for fault in faults):
        yield Finding("ok", SUBJECT, f"{config.registry_host} answers over TLS and takes both accounts")


def _faults(config: Config, opener: OpenerDirector) -> Iterator[Finding]:
    for setting, file, pushes in (("push_account_file", config.push_account, True), ("pull_account_file", config.pull_account, False)):
        try:
            account = registryaccess.basic(file)
        except OSError:
            continue  # told of with all files that settings name
        may = _may_push(config, opener, account)
        if isinstance(may, Finding):
            yield may
            return
        if may is None:
            yield Finding("fail", SUBJECT, f"refuses the account in registry.{setting}", f"Put the account that the registry knows into {file}.")
        elif pushes and not may:
            yield Finding("fail", SUBJECT, "does not let the account in registry.push_account_file push", "Give that account the right to push.")
        elif may and not pushes:
            text = "lets the account in registry.pull_account_file push, too: whoever reads it on a node can replace images"
            yield Finding("warn", SUBJECT, text, "Give nodes an account, or a port of the registry, that only reads.")


def _may_push(config: Config, opener: OpenerDirector, account: str) -> bool | Finding | None:
    """Whether an account may push; None when it is refused altogether; a finding when that cannot be known."""
    try:
        if _status(opener, Request(f"{config.registry_url}/v2/"), account)[0] in REFUSED:  # noqa: S310 - https, as configured
            return None
        begun = Request(f"{config.registry_url}/v2/{PROBE}/blobs/uploads/", data=b"", method="POST")  # noqa: S310 - same
        status, location = _status(opener, begun, account)
        if status == HTTPStatus.ACCEPTED:
            place = urljoin(f"{config.registry_url}/", location)
            if place.startswith(f"{config.registry_url}/"):  # the account goes nowhere else
                _status(opener, Request(place, method="DELETE"), account)  # noqa: S310 - same
            return True
    except URLError as error:
        if isinstance(error.reason, ssl.SSLError):
            text = f"{config.registry_host} shows a certificate that is not trusted"
            return Finding("fail", SUBJECT, text, "Set registry.ca_file to a PEM bundle that has the certificate of who signs it.")
        return _silent(config)
    except (OSError, ValueError):
        return _silent(config)
    return False if status in REFUSED else Finding("fail", SUBJECT, f"answers with HTTP status {status}", "Look at the registry's log.")


def _silent(config: Config) -> Finding:
    return Finding("fail", SUBJECT, f"{config.registry_host} does not answer", "Look at the machine that it runs on, and at the network between.")


def _status(opener: OpenerDirector, request: Request, account: str) -> tuple[int, str]:
    """Status and ``Location`` of an answer. Raises OSError."""
    request.add_header("Authorization", account)
    try:
        with opener.open(request, timeout=TIMEOUT) as answer:
            return int(answer.status), str(answer.headers.get("Location", ""))
    except HTTPError as error:
        with error:
            return error.code, ""
