"""getaddrinfo and getnameinfo, without a name server."""

from __future__ import annotations

import asyncio
import socket

import pytest


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", None, b"127.0.0.1"])
@pytest.mark.parametrize("port", [80, "80", None])
async def test_answers_are_those_of_the_socket_module(loop, host, port):
    if host is None and port is None:
        pytest.skip("nothing is asked")
    assert await loop.getaddrinfo(host, port) == socket.getaddrinfo(host, port)


async def test_every_hint_is_heeded(loop):
    hints = {
        "family": socket.AF_INET,
        "type": socket.SOCK_STREAM,
        "proto": socket.IPPROTO_TCP,
        "flags": socket.AI_PASSIVE,
    }
    assert await loop.getaddrinfo(None, 80, **hints) == socket.getaddrinfo(None, 80, **hints)


async def test_service_names_are_understood(loop):
    assert await loop.getaddrinfo("127.0.0.1", "http", type=socket.SOCK_STREAM) == socket.getaddrinfo(
        "127.0.0.1", "http", type=socket.SOCK_STREAM
    )


async def test_constants_stay_enumerations(loop):
    family, kind, *_ = (await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM))[0]
    assert family is socket.AF_INET
    assert kind is socket.SOCK_STREAM


@pytest.mark.parametrize(
    ("host", "hints"),
    [
        ("does-not-exist.invalid", {}),
        ("127.0.0.1", {"family": socket.AF_INET6}),
        ("not an address", {"flags": socket.AI_NUMERICHOST}),
    ],
)
async def test_an_unresolvable_host_is_a_gaierror(loop, host, hints):
    with pytest.raises(socket.gaierror):
        await loop.getaddrinfo(host, 80, **hints)


async def test_a_connection_to_an_unresolvable_host_is_a_gaierror(loop):
    with pytest.raises(socket.gaierror):
        await loop.create_connection(asyncio.Protocol, "does-not-exist.invalid", 80)


@pytest.mark.parametrize("host", [42, object(), ["127.0.0.1"]])
async def test_a_host_of_a_wrong_type_is_a_type_error(loop, host):
    with pytest.raises(TypeError):
        await loop.getaddrinfo(host, 80)


async def test_a_port_of_a_wrong_type_is_refused(loop):
    with pytest.raises((OSError, TypeError)):
        await loop.getaddrinfo("127.0.0.1", object())


async def test_names_of_addresses(loop):
    address, flags = ("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    assert await loop.getnameinfo(address, flags) == ("127.0.0.1", "80")
    assert await loop.getnameinfo(address) == socket.getnameinfo(address, 0)


async def test_a_name_for_something_else_is_refused(loop):
    with pytest.raises((OSError, TypeError)):
        await loop.getnameinfo(("not an address", 80), socket.NI_NUMERICHOST)


async def test_many_questions_at_once(loop):
    answers = await asyncio.gather(*(loop.getaddrinfo("localhost", port) for port in range(1, 201)))
    assert [answer[0][4][1] for answer in answers] == list(range(1, 201))


async def test_a_cancelled_question_leaves_nothing(loop):
    tasks = [asyncio.ensure_future(loop.getaddrinfo("localhost", 80)) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, (asyncio.CancelledError, list)) for result in results)


async def test_a_loop_that_overrides_the_resolver_is_obeyed(loop_factory, loop):
    asked: list[object] = []

    async def getaddrinfo(host, port, **hints):
        asked.append(host)
        return socket.getaddrinfo("127.0.0.1", port, type=socket.SOCK_STREAM)

    with socket.create_server(("127.0.0.1", 0)) as server:
        loop.getaddrinfo = getaddrinfo
        transport, _ = await loop.create_connection(asyncio.Protocol, "name.invalid", server.getsockname()[1])
        transport.abort()
        await asyncio.sleep(0.001)
        del loop.getaddrinfo
    assert asked == ["name.invalid"]
