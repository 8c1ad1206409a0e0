"""Whether the machines that build answer, by a certificate that is trusted, and take the token. Asked by `check`."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final, Literal
from urllib.error import HTTPError, URLError
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

from binder_onprem.host.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binder_onprem.config import BuilderHost, Config

TIMEOUT: Final = 5
REFUSED: Final = 401


def findings(config: Config) -> Iterator[Finding]:
    """One for each machine; as long as one answers, the others are a warning."""
    found = [(builder.name, _fault(builder)) for builder in config.builders]
    level: Literal["warn", "fail"] = "warn" if config.build.here or not all(fault for _, fault in found) else "fail"
    for name, fault in found:
        if fault is None:
            yield Finding("ok", f"builder {name}", "answers over TLS and takes the token")
        else:
            yield Finding(level, f"builder {name}", *fault)


def _fault(builder: BuilderHost) -> tuple[str, str] | None:
    """What is wrong and what to do; None: nothing."""
    try:
        context = ssl.create_default_context(cafile=str(builder.ca_file) if builder.ca_file else None)
        token = builder.token_file.read_text(encoding="ascii").strip()
        opener = build_opener(ProxyHandler({}), HTTPSHandler(context=context))
        with opener.open(Request(f"{builder.url}/", headers={"Authorization": f"Bearer {token}"}), timeout=TIMEOUT):  # noqa: S310 - https, as configured
            return None
    except HTTPError as error:
        if error.code == REFUSED:
            return "refuses the token", f"Put the token that it takes orders by into {builder.token_file}."
        return f"answers with HTTP status {error.code}", "Look at the journal of its binder-onprem-daemon."
    except (ssl.SSLError, URLError) as error:
        if isinstance(error, ssl.SSLError) or isinstance(error.reason, ssl.SSLError):
            return "shows a certificate that is not trusted", "Set ca_file to a PEM bundle that has the certificate of who signs it."
        return f"{builder.url} does not answer", "Look at that machine, run `binder-onprem up` there, and look at the network between."
    except (OSError, UnicodeDecodeError):
        return f"{builder.token_file} or {builder.ca_file} cannot be read", "Write them."
