"""What redis-py's connection keywords mean for a native connection."""

import socket
import ssl
from collections.abc import Mapping
from typing import Any

from redis.asyncio.connection import Connection, ConnectionPool
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.auth.token import TokenInterface
from redis.credentials import CredentialProvider, StreamingCredentialProvider

from aioxide._rust import RedisTls, __version__

__all__ = ["NotNative", "connection_settings", "sentinel_settings"]


class NotNative(Exception):
    """The keywords ask for something that only redis-py's own connections do."""


def connection_settings(keywords: Mapping[str, Any], tls: bool = False) -> dict[str, Any]:
    """Return the settings of a native connection, perhaps with TLS; NotNative where there cannot be one."""
    provider = keywords.get("credential_provider")
    if keywords.get("redis_connect_func") or isinstance(provider, StreamingCredentialProvider):
        raise NotNative
    timeout = keywords.get("socket_timeout")
    connect_timeout = keywords.get("socket_connect_timeout", timeout)
    protocol = keywords.get("protocol")
    return {
        "host": keywords.get("host", "localhost"),
        "port": int(keywords.get("port", 6379)),
        "path": keywords.get("path") or None,
        "username": keywords.get("username"),
        "password": _text(keywords.get("password")),
        "credentials": None if provider is None else _Credentials(provider),
        "database": int(keywords.get("db") or 0),
        "client_name": keywords.get("client_name"),
        "library": ("aioxide", __version__) if keywords.get("driver_info") else None,
        "protocol": None if protocol is None else int(protocol),
        "connect_timeout": connect_timeout,
        "stall_timeout": timeout,
        "tls": _tls(keywords) if tls else None,
        "health_check": keywords.get("health_check_interval") or None,
        "keep_alive": _keep_alive(keywords),
        "backoff": _backoff(keywords.get("retry")),
        "encoding": keywords.get("encoding", "utf-8"),
        "encoding_errors": keywords.get("encoding_errors", "strict"),
        "decode_responses": bool(keywords.get("decode_responses")),
    }


_OPENSSL_ONLY = (
    "ssl_ca_path",
    "ssl_ciphers",
    "ssl_exclude_verify_flags",
    "ssl_include_verify_flags",
    "ssl_password",
)
"""Keywords that mean something to OpenSSL alone."""


def _tls(keywords: Mapping[str, Any]) -> RedisTls:
    """Return what redis-py's keywords mean for rustls; NotNative where only OpenSSL does what they say."""
    if any(keywords.get(name) for name in _OPENSSL_ONLY):
        raise NotNative
    required = keywords.get("ssl_cert_reqs", "required")
    minimum = keywords.get("ssl_min_version")
    return RedisTls(
        authorities_file=keywords.get("ssl_ca_certs"),
        authorities=keywords.get("ssl_ca_data"),
        chain_file=keywords.get("ssl_certfile"),
        key_file=keywords.get("ssl_keyfile"),
        verify=required not in (None, "none", ssl.CERT_NONE),
        check_name=bool(keywords.get("ssl_check_hostname", True)),
        only_tls13=minimum == ssl.TLSVersion.TLSv1_3,
    )


class _Credentials:
    """Asked by the native connection whenever it connects: returns user and password."""

    def __init__(self, provider: CredentialProvider):
        self._provider = provider

    def __call__(self) -> tuple[str | None, str | None]:
        answer = self._provider.get_credentials()
        if isinstance(answer, TokenInterface):
            raise TypeError("a token needs a StreamingCredentialProvider")
        if len(answer) == 1:
            return None, _text(answer[0])
        return answer[0] or None, _text(answer[1])


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return value.decode() if isinstance(value, bytes) else str(value)


def _keep_alive(keywords: Mapping[str, Any]) -> tuple[float, float, int] | None:
    if not keywords.get("socket_keepalive", True):
        return None
    options = keywords.get("socket_keepalive_options")
    options = options if isinstance(options, Mapping) else {}
    return (
        float(options.get(socket.TCP_KEEPIDLE, 30)),
        float(options.get(socket.TCP_KEEPINTVL, 5)),
        int(options.get(socket.TCP_KEEPCNT, 3)),
    )


def _backoff(retry: Any) -> tuple[float, float, int]:
    """Return base and cap in seconds, and how many attempts follow a failed one."""
    if retry is None:
        return (0.01, 1.0, 0)
    backoff = getattr(retry, "_backoff", None)
    base = getattr(backoff, "_base", getattr(backoff, "_backoff", 0.01))
    cap = getattr(backoff, "_cap", base)
    retries = retry.get_retries()
    return (float(base), float(max(base, cap)), 2**32 - 1 if retries < 0 else int(retries))


_QUESTIONS = ("discover_master", "discover_slaves", "check_master_state", "filter_slaves")


def sentinel_settings(settings: dict[str, Any], pool: SentinelConnectionPool) -> dict[str, Any]:
    """Return the settings of a connection located as the pool locates its own; NotNative if it cannot be."""
    manager = pool.sentinel_manager
    asks_otherwise = any(getattr(type(manager), name) is not getattr(Sentinel, name) for name in _QUESTIONS)
    if asks_otherwise or pool.check_connection:
        raise NotNative
    pools = [client.connection_pool for client in manager.sentinels]
    if any(type(other) is not ConnectionPool or other.connection_class is not Connection for other in pools):
        raise NotNative
    # A failover takes seconds: who waits has more patience than with a server that is just away.
    backoff = settings["backoff"] if pool.connection_kwargs.get("retry") else (0.01, 1.0, 10)
    sentinel = {
        "addresses": [
            (other.connection_kwargs["host"], int(other.connection_kwargs["port"])) for other in pools
        ],
        "service": pool.service_name,
        "is_master": pool.is_master,
        "min_other_sentinels": manager.min_other_sentinels,
        "force_master_ip": manager._force_master_ip,
        "settings": connection_settings(pools[0].connection_kwargs),
    }
    return {**settings, "backoff": backoff, "sentinel": sentinel}
