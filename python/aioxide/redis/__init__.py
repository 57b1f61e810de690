"""Redis: redis-py's asyncio interface on native connections.

``import aioxide.redis as redis`` in place of ``import redis.asyncio as redis``: the same names, arguments and
exceptions. It needs redis-py, whose commands these are: ``pip install aioxide[redis]``.
"""

try:
    import redis.asyncio
except ImportError as error:
    raise ImportError("aioxide.redis needs redis-py 8 or newer: pip install aioxide[redis]") from error

from redis.asyncio import *  # noqa: F403 - the same names, whatever they are

from . import exceptions
from .cluster import RedisCluster
from .client import Redis, StrictRedis, from_url
from .legacy import create_connection, create_pool, create_redis, create_redis_pool
from .pipeline import Pipeline
from .sentinel import Sentinel
from .worker import Event, EventsFailed, Reject, StreamWorker

__all__ = [
    *redis.asyncio.__all__,
    "Event",
    "EventsFailed",
    "Pipeline",
    "Redis",
    "RedisCluster",
    "Reject",
    "Sentinel",
    "StreamWorker",
    "StrictRedis",
    "create_connection",
    "create_pool",
    "create_redis",
    "create_redis_pool",
    "exceptions",
    "from_url",
]
