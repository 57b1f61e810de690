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
from .client import Redis, StrictRedis, from_url
from .pipeline import Pipeline

__all__ = [*redis.asyncio.__all__, "Pipeline", "Redis", "StrictRedis", "exceptions", "from_url"]
