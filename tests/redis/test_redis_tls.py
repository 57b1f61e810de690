"""Redis over TLS: redis-py's keywords and URLs, by rustls; who is trusted, and what distrust looks like."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from services import Service, Unavailable, redis_server

pytest.importorskip("redis.asyncio", reason="redis-py cannot be had for this Python")

import aioxide.redis as redis


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate of an authority, beside which lie the server's own and its key."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(folder / "authority.pem")
    leaf.private_key_pem.write_to_path(folder / "server.key")
    leaf.cert_chain_pems[0].write_to_path(folder / "server.pem")
    return folder / "authority.pem"


@pytest.fixture(scope="module")
def server(authority: Path) -> Iterator[Service]:
    certificate, key = authority.with_name("server.pem"), authority.with_name("server.key")
    settings = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key))
    try:
        with redis_server(*settings) as service:
            if service.certificate is None:
                pytest.skip("this redis-server was built without TLS")
            yield service
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def address(server: Service) -> dict[str, Any]:
    return {"host": server.host, "port": server.tls_port, "ssl": True}


async def test_commands_go_over_tls(
    loop: asyncio.AbstractEventLoop, authority: Path, address: dict[str, Any], loop_name: str
) -> None:
    async with redis.Redis(**address, ssl_ca_certs=str(authority)) as client:
        assert (client.native_engine() is None) == (loop_name == "asyncio")
        value = bytes(range(256)) * 4096
        assert await client.set("large", value) is True
        assert await asyncio.gather(*[client.get("large") for _ in range(20)]) == [value] * 20
        assert await client.blpop("nothing", timeout=0.01) is None


async def test_an_authority_can_be_given_as_text(
    loop: asyncio.AbstractEventLoop, authority: Path, address: dict[str, Any]
) -> None:
    async with redis.Redis(**address, ssl_ca_data=authority.read_text()) as client:
        assert await client.ping() is True


async def test_a_url_says_it_too(loop: asyncio.AbstractEventLoop, server: Service, authority: Path) -> None:
    url = f"rediss://{server.host}:{server.tls_port}/1?ssl_ca_certs={authority}"
    async with redis.from_url(url) as client:
        assert await client.ping() is True


async def test_a_server_that_nobody_vouches_for_is_not_spoken_to(
    loop: asyncio.AbstractEventLoop, address: dict[str, Any]
) -> None:
    async with redis.Redis(**address) as client:
        with pytest.raises(redis.ConnectionError, match=r"(?i)certificate"):
            await client.ping()


async def test_distrust_can_be_switched_off(loop: asyncio.AbstractEventLoop, address: dict[str, Any]) -> None:
    async with redis.Redis(**address, ssl_cert_reqs="none", ssl_check_hostname=False) as client:
        assert await client.ping() is True


async def test_what_only_openssl_does_is_left_to_redis_py(
    loop: asyncio.AbstractEventLoop, authority: Path, address: dict[str, Any]
) -> None:
    options = {"ssl_ca_certs": str(authority), "ssl_ciphers": "HIGH"}
    async with redis.Redis(**address, **options) as client:
        assert client.native_engine() is None
        assert await client.ping() is True


@pytest.mark.parametrize("is_over", [False, True], ids=["valid", "expired"])
async def test_a_server_that_is_its_own_authority(
    loop: asyncio.AbstractEventLoop, authority: Path, tmp_path: Path, is_over: bool
) -> None:
    """As `openssl req -x509` makes them: trusted where it was given itself, while it is valid."""
    own, key = tmp_path / "own.pem", tmp_path / "own.key"
    write_self_signed(own, key, expires=timedelta(days=-1 if is_over else 1))
    options = ("--tls-cert-file", str(own), "--tls-key-file", str(key))
    with redis_server(*options) as service:
        if service.certificate is None:
            pytest.skip("this redis-server was built without TLS")
        address = {"host": service.host, "port": service.tls_port, "ssl": True, "retry": None}
        async with redis.Redis(**address, ssl_ca_certs=str(own)) as client:
            if is_over:
                with pytest.raises(redis.ConnectionError, match=r"(?i)expired"):
                    await client.ping()
            else:
                assert await client.ping() is True
        async with redis.Redis(**address, ssl_ca_certs=str(authority)) as client:
            with pytest.raises(redis.ConnectionError, match=r"(?i)certificate"):
                await client.ping()


def write_self_signed(certificate: Path, key: Path, expires: timedelta) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "its own authority")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + expires)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


async def test_a_file_that_is_no_certificate_is_an_error(
    loop: asyncio.AbstractEventLoop, address: dict[str, Any], loop_name: str
) -> None:
    async with redis.Redis(**address, ssl_ca_certs=__file__) as client:
        kind = ValueError if loop_name != "asyncio" else Exception
        with pytest.raises(kind):
            await client.ping()
