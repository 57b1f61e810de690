"""redis-py's exceptions: code that catches them catches ours."""

from redis._parsers.base import BaseParser
from redis.asyncio.sentinel import MasterNotFoundError, SlaveNotFoundError
from redis.exceptions import *  # noqa: F403 - the same names, whatever they are
from redis.exceptions import ResponseError

__all__ = ["MasterNotFoundError", "ResponseError", "SlaveNotFoundError", "parse_error"]

parse_error = BaseParser.parse_error
"""Return the exception that the text of an error reply means."""
