"""The connection to a cluster's API server, by the kubeconfig of the namespace's ServiceAccount; its errors as ours.

Used by the daemon and by `check`; the hub's spawner has KubeSpawner's own.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import yaml
from kubernetes_asyncio import config as kubeconfig
from kubernetes_asyncio.client.exceptions import ApiException

from binder_onprem.errors import EngineUnavailable, HostUnfit, NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from kubernetes_asyncio.client import ApiClient

    from binder_onprem.config.sessions import KubernetesSessions

logger = logging.getLogger(__name__)

SECONDS: Final = 15.0
"""One call's limit."""
DOWN: Final = "The cluster that sessions run in does not answer. Sessions that run go on; try again later."
REFUSED: Final = "The cluster that sessions run in refuses this site's account. The administrator should run `binder-onprem check`."


@asynccontextmanager
async def opened(cluster: KubernetesSessions) -> AsyncIterator[ApiClient]:
    """A client for as long as the block lasts. Raises `HostUnfit` for a kubeconfig that is none."""
    try:
        client = await kubeconfig.new_client_from_config(config_file=str(cluster.kubeconfig_file), persist_config=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError, kubeconfig.ConfigException) as error:
        raise HostUnfit(f"{cluster.kubeconfig_file} is no kubeconfig that can be used. Write that of the ServiceAccount.") from error
    try:
        yield client
    finally:
        await client.close()


@contextmanager
def translated() -> Iterator[None]:
    """The API's errors as `NotFound` and `EngineUnavailable`; its words go to the log."""
    try:
        yield
    except ApiException as error:
        if error.status == HTTPStatus.NOT_FOUND:
            raise NotFound("That is not in the cluster (any more).") from error
        logger.info("the cluster refused", extra={"status": error.status, "words": str(error.reason)[:200]})
        denied = error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
        raise EngineUnavailable(REFUSED if denied else DOWN) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise EngineUnavailable(DOWN) from error


async def call(request: Any) -> Any:
    """Await one request of the client's. Raises `NotFound`, `EngineUnavailable`."""
    with translated():
        async with asyncio.timeout(SECONDS):
            return await request
