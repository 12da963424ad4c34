"""Address of ClickHouse -> a pool of connections that sends a request again if it has reached no ClickHouse.

Edge: HTTP. Behind one address there may be several servers, of which one is dead. A balancer without checks goes on
sending it a share of all requests, and answers these by itself, with 503. One question of the driver is several
requests, so each request is repeated on its own: if the question were, it could meet the dead server each time.

Source: https://urllib3.readthedocs.io/en/stable/reference/urllib3.poolmanager.html
"""

from __future__ import annotations

import os
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from clickhouse_connect.driver.httputil import check_env_proxy, get_pool_manager_options
from urllib3 import PoolManager, ProxyManager
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from urllib3 import BaseHTTPResponse

# Pauses between attempts, in seconds, and after which time there is no further one.
PAUSES_S, PATIENCE_S = (0.05, 0.1, 0.2, 0.4), 5.0
_NOT_REACHED = (NewConnectionError, ConnectTimeoutError)
# ClickHouse itself answers with 503, too, and then names its error.
_CODE = "X-ClickHouse-Exception-Code"


class _Pool(PoolManager):
    """Connections to ClickHouse, or to a proxy before it (`_ProxyPool`)."""

    def urlopen(self, method: str, url: str, redirect: bool = True, **options: Any) -> BaseHTTPResponse:  # type: ignore[override]
        """Send a request as urllib3 does; send it again if no ClickHouse has received it.

        Raises:
            HTTPError: as of urllib3.
        """
        begun_at = time.monotonic()
        for pause_s in PAUSES_S:
            try:
                response = super().urlopen(method, url, redirect, **options)
            except HTTPError as error:
                if not _is_not_reached(error) or time.monotonic() - begun_at > PATIENCE_S:
                    raise
            else:
                if response.status != HTTPStatus.SERVICE_UNAVAILABLE or _CODE in response.headers:
                    return response
                if time.monotonic() - begun_at > PATIENCE_S:
                    return response
                response.drain_conn()
                response.release_conn()
            time.sleep(pause_s)
        return super().urlopen(method, url, redirect, **options)


class _ProxyPool(ProxyManager, _Pool):
    """Connections through the proxy that HTTP_PROXY or HTTPS_PROXY names."""


# By process, since connections are not shared with a parent; and by what they need.
_shared: dict[tuple[object, ...], PoolManager] = {}


def shared_pool(scheme: str, host: str, port: int, certificates: Mapping[str, str]) -> PoolManager:
    """Return the pool that all clients of this process share, for these arguments of `pool`."""
    key = (os.getpid(), scheme, check_env_proxy(scheme, host, port), *sorted(certificates.items()))
    if key not in _shared:
        _shared[key] = pool(scheme, host, port, certificates)
    return _shared[key]


def pool(scheme: str, host: str, port: int, certificates: Mapping[str, str]) -> PoolManager:
    """Return a pool.

    Args:
        scheme: `http` or `https`.
        host: of ClickHouse.
        port: of ClickHouse.
        certificates: paths of files, by the names of the driver's arguments for them.
    """
    named: dict[str, Any] = dict(certificates)
    options = get_pool_manager_options(**named)
    proxy = check_env_proxy(scheme, host, port)
    return _ProxyPool(proxy, **options) if proxy else _Pool(**options)


def _is_not_reached(error: HTTPError) -> bool:
    """Tell whether no connection could be made; after several attempts, urllib3 names the reason."""
    return isinstance(error, _NOT_REACHED) or isinstance(getattr(error, "reason", None), _NOT_REACHED)
