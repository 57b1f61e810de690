"""The methods that programs call most take their arguments as asyncio's do, and refuse them as those do."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest
from peers import connected_pair, receive_exactly


async def nothing():
    """Return at once."""


@pytest.mark.parametrize("name", ["get_debug", "is_running", "is_closed", "time", "create_future"])
async def test_questions_take_no_arguments(loop, name):
    method = getattr(loop, name)
    with pytest.raises(TypeError):
        method(1)
    with pytest.raises(TypeError):
        method(other=1)


async def test_a_task_can_be_given_by_name(loop):
    task = loop.create_task(coro=nothing(), name="given")
    assert task.get_name() == "given"
    assert await task is None


@pytest.mark.parametrize(("arguments", "keywords"), [((), {}), ((1, 2), {}), ((), {"name": "x"})], ids=str)
async def test_a_task_needs_one_coroutine(loop, arguments, keywords):
    with pytest.raises(TypeError):
        loop.create_task(*arguments, **keywords)


@pytest.mark.parametrize("keyword", ["other", "loop"])
async def test_a_task_refuses_other_keywords(loop, keyword):
    coroutine = nothing()
    with pytest.raises(TypeError):
        loop.create_task(coroutine, **{keyword: loop})
    coroutine.close()


@pytest.mark.parametrize("keywords", [{}, {"name": "elsewhere"}], ids=str)
async def test_a_task_of_a_loop_that_does_not_run_belongs_to_it(loop, loop_factory, keywords):
    other = loop_factory()
    given = dict(keywords)
    task = other.create_task(nothing(), **given)
    assert task.get_loop() is other
    assert given == keywords
    assert other.create_future().get_loop() is other
    await loop.run_in_executor(None, other.run_until_complete, task)
    other.close()


async def test_write_takes_its_data_by_name(loop):
    with connected_pair() as (ours, peer):
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        transport.write(data=b"by name")
        for wrong in [(), (b"x", b"y")]:
            with pytest.raises(TypeError):
                transport.write(*wrong)
        for keywords in [{"other": b"x"}, {"data": b"x", "other": b"y"}]:
            with pytest.raises(TypeError):
                transport.write(**keywords)
        with pytest.raises(TypeError):
            transport.is_closing(1)
        assert not transport.is_closing()
        await asyncio.sleep(0)
        assert await loop.run_in_executor(None, receive_exactly, peer, 7) == b"by name"
        transport.abort()
        assert transport.is_closing()
        await asyncio.sleep(0)


async def test_sendto_takes_its_arguments_by_name(loop):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(20)
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        transport.sendto(data=b"both", addr=peer.getsockname())
        transport.sendto(b"one", addr=peer.getsockname())
        transport.sendto(b"none", peer.getsockname())
        await asyncio.sleep(0)
        received = [await loop.run_in_executor(None, peer.recv, 10) for _ in range(3)]
        assert received == [b"both", b"one", b"none"]
        for wrong in [(), (b"x", peer.getsockname(), 1)]:
            with pytest.raises(TypeError):
                transport.sendto(*wrong)
        with pytest.raises(TypeError):
            transport.sendto(b"x", other=1)
        transport.close()
        await asyncio.sleep(0)


async def test_datagrams_of_another_thread_keep_nothing_alive(loop):
    def send():
        before = sys.getrefcount(loop)
        for _ in range(1000):
            transport.sendto(b"x")
        return sys.getrefcount(loop) - before

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=peer.getsockname()
        )
        assert await loop.run_in_executor(None, send) < 100
        transport.close()
        await asyncio.sleep(0)


async def test_timers_are_cancelled_without_arguments(loop):
    handle = loop.call_later(60, print)
    with pytest.raises(TypeError):
        handle.cancel(1)
    assert not handle.cancelled()
    assert handle.cancel() is None
    assert handle.cancelled()
