"""Sentinel: clients whose connections are located by asking sentinels."""

from typing import Any

import redis.asyncio
import redis.asyncio.sentinel
from redis.asyncio.sentinel import SentinelConnectionPool

from .client import Redis

__all__ = ["Sentinel"]


class Sentinel(redis.asyncio.sentinel.Sentinel):
    """redis-py's Sentinel client, whose ``master_for`` and ``slave_for`` return clients on native connections.

    Such a client asks the sentinels whenever it connects, and makes sure that the server is what it was taken for. A
    master that answers READONLY is none any more: whoever gets the error learns of it, later commands go to the new one.
    Commands wait while there is no master, as long as the client's ``retry`` allows; that is ten attempts by default.
    """

    def __init__(self, sentinels: Any, *arguments: Any, **keywords: Any) -> None:
        super().__init__(sentinels, *arguments, **keywords)
        self.sentinels = [Redis(host=host, port=port, **self.sentinel_kwargs) for host, port in sentinels]

    def master_for(
        self,
        service_name: str,
        redis_class: type[redis.asyncio.Redis] = Redis,
        connection_pool_class: type[SentinelConnectionPool] = SentinelConnectionPool,
        **keywords: Any,
    ) -> Any:
        """Return a client of the service's master, whichever that is."""
        return super().master_for(service_name, redis_class, connection_pool_class, **keywords)

    def slave_for(
        self,
        service_name: str,
        redis_class: type[redis.asyncio.Redis] = Redis,
        connection_pool_class: type[SentinelConnectionPool] = SentinelConnectionPool,
        **keywords: Any,
    ) -> Any:
        """Return a client of one of the service's replicas: another one for each connection."""
        return super().slave_for(service_name, redis_class, connection_pool_class, **keywords)

    def replica_for(
        self,
        service_name: str,
        redis_class: type[redis.asyncio.Redis] = Redis,
        connection_pool_class: type[SentinelConnectionPool] = SentinelConnectionPool,
        **keywords: Any,
    ) -> Any:
        """Return a client of one of the service's replicas, as ``slave_for``."""
        return self.slave_for(service_name, redis_class, connection_pool_class, **keywords)
