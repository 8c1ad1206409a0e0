"""A Binder whose only way outside is a proxy with an account: builds go through it, what is the site's own does not, and the account is nobody's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from binder_onprem.config import load
from binder_onprem.host import sources
from tests.cluster.proxy import PASSWORD, running
from tests.e2e.kernel import kernel
from tests.e2e.stand import Stand, ready

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.e2e.conftest import Origin

pytestmark = pytest.mark.real

CODE = "import os; print(os.environ['https_proxy'], os.environ['no_proxy'])"


def holding(paths: Iterable[Path]) -> list[Path]:
    """Those of the files that have the proxy's password in them."""
    return [path for path in paths if path.is_file() and PASSWORD.encode() in path.read_bytes()]


def for_others(stand: Stand) -> Iterable[Path]:
    """What other accounts read, and what images are told of."""
    return (*Path("/etc/systemd/system").glob("binder-onprem-*"), *(stand.home / "storage" / "overlay-images").rglob("*"))


async def test_a_build_goes_through_the_proxy_and_a_session_is_told_it_without_its_account(origin: Origin) -> None:
    stand = Stand.new()
    origin.make("proxied", {"requirements.txt": "toolz\n"})
    with running() as proxy:
        stand.settings["network"] |= {"proxy": proxy.url("127.0.0.1"), "no_proxy": ["127.0.0.0/8", "git.intern.example"]}
        stand.configure()
        try:
            stand.up()
            session = await ready(stand, origin.spec("proxied"))
            index = sources.read(load(home=stand.home)).pypi
            assert index is None or urlsplit(index).hostname in proxy.asked
            # The git server, the registry and the parts of the Binder are on loopback.
            assert proxy.asked
            assert proxy.asked & {"127.0.0.1", "localhost"} == set()
            assert proxy.refused == 0
            async with kernel(session) as inside:
                assert await inside.run(CODE) == f"http://127.0.0.1:{proxy.port} localhost,127.0.0.1,127.0.0.0/8,git.intern.example\n"
            assert holding([Path(f"/proc/{stand.pid('podman')}/environ")])
            assert holding(for_others(stand)) == []
        finally:
            stand.destroy()
