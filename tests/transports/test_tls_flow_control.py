"""Pausing and resuming through the TLS layer, in both directions, and protocols that own their buffers."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest
from peers import until_it_blocks
from recorder import BufferedRecorder, Recorder
from tls_peers import ViewRecorder, finished, secured, write_until_paused

pytestmark = pytest.mark.usefixtures("tls_engine")

ENOUGH = 64 << 20


async def test_default_limits_are_asyncios(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        assert transport.get_write_buffer_limits() == (131072, 524288)
        assert transport.get_write_buffer_size() == 0
        await finished(transport, protocol, peer)


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        ({"high": 1000}, (250, 1000)),
        ({"low": 1000}, (1000, 4000)),
        ({"high": 1000, "low": 10}, (10, 1000)),
        ({}, (131072, 524288)),
    ],
    ids=str,
)
async def test_limits_can_be_set(loop, given, limits):
    async with secured(loop, "client") as (transport, protocol, peer):
        transport.set_write_buffer_limits(**given)
        assert transport.get_write_buffer_limits() == limits
        assert protocol.calls == ["connection_made"]
        await finished(transport, protocol, peer)


@pytest.mark.parametrize("wrong", [{"high": -1}, {"high": 1, "low": 2}, {"low": -1, "high": 5}], ids=str)
async def test_wrong_limits_are_value_errors(loop, wrong):
    async with secured(loop, "client") as (transport, protocol, peer):
        with pytest.raises(ValueError, match="high"):
            transport.set_write_buffer_limits(**wrong)
        with pytest.raises(ValueError, match="high"):
            transport.set_read_buffer_limits(**wrong)
        assert transport.get_write_buffer_limits() == (131072, 524288)
        await finished(transport, protocol, peer)


async def test_read_limits_are_asyncios_and_can_be_set(loop):
    async with secured(loop, "client") as (transport, protocol, peer):
        assert transport.get_read_buffer_limits() == (65536, 262144)
        assert transport.get_read_buffer_size() == 0
        transport.set_read_buffer_limits(high=1000, low=10)
        assert transport.get_read_buffer_limits() == (10, 1000)
        transport.set_read_buffer_limits()
        assert transport.get_read_buffer_limits() == (65536, 262144)
        await finished(transport, protocol, peer)


async def test_a_peer_that_does_not_read_pauses_and_one_that_reads_resumes(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        chunk = os.urandom(1 << 17)
        written = write_until_paused(transport, protocol, chunk)
        assert transport.get_write_buffer_size() > 131072
        receiving = asyncio.ensure_future(asyncio.to_thread(peer.receive, written))
        await protocol.writable.wait()
        assert transport.get_write_buffer_size() <= 131072
        assert await receiving == chunk * (written // len(chunk))
        assert protocol.calls == ["connection_made", "pause_writing", "resume_writing"]
        await finished(transport, protocol, peer)


async def test_pausing_is_told_once(loop, side):
    async with secured(loop, side) as (transport, protocol, _):
        write_until_paused(transport, protocol, bytes(1 << 17))
        for _ in range(50):
            transport.write(bytes(1 << 16))
        assert protocol.calls == ["connection_made", "pause_writing"]


async def test_small_writes_do_not_pause(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        for _ in range(100):
            transport.write(b"x" * 100)
            await asyncio.sleep(0)
        assert await asyncio.to_thread(peer.receive, 10_000) == b"x" * 10_000
        assert protocol.calls == ["connection_made"]
        await finished(transport, protocol, peer)


async def test_a_low_limit_resumes_early(loop):
    async with secured(loop, "client") as (transport, protocol, peer):
        transport.set_write_buffer_limits(high=2 << 20, low=1 << 20)
        written = write_until_paused(transport, protocol, bytes(1 << 17))
        assert transport.get_write_buffer_size() >= 2 << 20
        receiving = asyncio.ensure_future(asyncio.to_thread(peer.receive, written))
        await protocol.writable.wait()
        assert transport.get_write_buffer_size() <= 1 << 20
        await receiving
        await finished(transport, protocol, peer)


async def test_a_close_during_a_pause_still_sends_everything(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        chunk = os.urandom(1 << 17)
        written = write_until_paused(transport, protocol, chunk)
        transport.close()
        assert await asyncio.to_thread(peer.receive_all) == chunk * (written // len(chunk))
        await asyncio.to_thread(peer.shut)
        assert await protocol.lost is None


async def test_an_abort_during_a_pause_sends_no_more(loop, side):
    async with secured(loop, side) as (transport, protocol, _):
        write_until_paused(transport, protocol, bytes(1 << 17))
        transport.abort()
        assert await protocol.lost is None
        assert protocol.calls == ["connection_made", "pause_writing", "connection_lost"]


async def test_a_writer_that_drains_never_holds_much(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        data = os.urandom(16 << 20)
        largest = 0
        receiving = asyncio.ensure_future(asyncio.to_thread(peer.receive, len(data)))
        for start in range(0, len(data), 1 << 16):
            await protocol.writable.wait()
            transport.write(data[start : start + (1 << 16)])
            largest = max(largest, transport.get_write_buffer_size())
        assert await receiving == data
        assert largest <= 524288 + 2 * (1 << 16)
        await finished(transport, protocol, peer)


async def test_paused_reading_delivers_nothing(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        transport.pause_reading()
        assert not transport.is_reading()
        transport.pause_reading()
        await asyncio.to_thread(peer.send, b"waiting")
        await asyncio.sleep(0.02)
        assert protocol.data == b""
        transport.resume_reading()
        assert transport.is_reading()
        transport.resume_reading()
        assert await protocol.received(7) == b"waiting"
        await finished(transport, protocol, peer)


async def test_paused_reading_pushes_back_on_the_peer(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        transport.pause_reading()
        sent = 0
        record = bytes(16384)
        pending = memoryview(b"")
        peer.sock.setblocking(False)

        def send_one() -> int:
            nonlocal pending, sent
            if not pending:
                pending = memoryview(peer.encrypt(record))
                sent += len(record)
            count = peer.sock.send(pending)
            pending = pending[count:]
            return count

        quiet = 0
        while quiet < 5:
            quiet = 0 if until_it_blocks(send_one) else quiet + 1
            assert sent < ENOUGH, "nothing ever stops the peer"
            await asyncio.sleep(0.01)
        assert protocol.data == b""
        peer.sock.settimeout(20)
        transport.resume_reading()
        await asyncio.to_thread(peer.sock.sendall, pending)
        assert len(await protocol.received(sent)) == sent
        await finished(transport, protocol, peer)


async def test_pausing_inside_data_received_stops_delivery(loop, side):
    class Stopping(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()

    async with secured(loop, side, Stopping(loop)) as (transport, protocol, peer):
        received = 0
        for number in range(5):
            await asyncio.to_thread(peer.send, b"%d" % number)
            await asyncio.sleep(0.005)
            assert len(await protocol.received(received + 1)) == received + 1
            received += 1
            await asyncio.to_thread(peer.send, b"more")
            await asyncio.sleep(0.005)
            assert len(protocol.data) == received
            transport.resume_reading()
            assert len(await protocol.received(received + 4)) == received + 4
            received += 4
            transport.resume_reading()
        await finished(transport, protocol, peer)


async def test_pause_and_resume_at_every_turn_lose_nothing(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        data = os.urandom(4 << 20)
        sending = asyncio.ensure_future(asyncio.to_thread(peer.send, data))
        while len(protocol.data) < len(data):
            transport.pause_reading()
            await asyncio.sleep(0)
            transport.resume_reading()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert protocol.data == data
        await sending
        await finished(transport, protocol, peer)


async def test_the_end_waits_while_reading_is_paused(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        transport.pause_reading()
        await asyncio.to_thread(peer.send, b"last")
        await asyncio.to_thread(peer.close_notify)
        await asyncio.sleep(0.02)
        assert protocol.calls == ["connection_made"]
        transport.resume_reading()
        assert await protocol.lost is None
        assert protocol.data == b"last"
        assert protocol.calls == ["connection_made", "data_received", "eof_received", "connection_lost"]


async def test_reading_on_after_the_peer_left_delivers_what_it_sent(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        transport.pause_reading()
        await asyncio.to_thread(peer.send, b"last")
        await asyncio.to_thread(peer.close_notify)
        peer.sock.shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.02)
        assert protocol.calls == ["connection_made"]
        transport.resume_reading()
        assert await protocol.lost is None
        assert protocol.data == b"last"


async def test_writing_goes_on_while_reading_is_paused(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        transport.pause_reading()
        data = os.urandom(4 << 20)
        transport.write(data)
        assert await asyncio.to_thread(peer.receive, len(data)) == data
        transport.resume_reading()
        await finished(transport, protocol, peer)


# BufferedProtocol: decrypted data arrives in memory the protocol owns.


@pytest.mark.parametrize("size", [1, 7, 4096, 16384, 65536, 1 << 20])
async def test_data_arrives_exactly_in_buffers_of_any_size(loop, side, size):
    async with secured(loop, side, ViewRecorder(loop, size)) as (transport, protocol, peer):
        data = os.urandom(min(size * 100, 4 << 20))
        sending = asyncio.ensure_future(asyncio.to_thread(peer.send, data))
        assert await protocol.received(len(data)) == data
        await sending
        assert max(protocol.counts) <= size
        assert min(protocol.counts) >= 1
        assert all(isinstance(hint, int) for hint in protocol.hints)
        await finished(transport, protocol, peer)


async def test_a_bytearray_takes_more_than_one_record(loop, side, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio reads what follows the first record into a copy")
    async with secured(loop, side, BufferedRecorder(loop, 1 << 20)) as (transport, protocol, peer):
        data = os.urandom(4 << 20)
        sending = asyncio.ensure_future(asyncio.to_thread(peer.send, data))
        assert await protocol.received(len(data)) == data
        await sending
        await finished(transport, protocol, peer)


async def test_a_part_of_a_buffer_may_be_given(loop, side):
    protocol = BufferedRecorder(loop, 100)
    whole = protocol.buffer
    protocol.get_buffer = lambda hint: memoryview(whole)[10:20]
    received = bytearray()
    complete = asyncio.Event()

    def buffer_updated(count):
        received.extend(whole[10 : 10 + count])
        if len(received) == 50:
            complete.set()

    protocol.buffer_updated = buffer_updated
    async with secured(loop, side, protocol) as (transport, _, peer):
        await asyncio.to_thread(peer.send, b"0123456789" * 5)
        await complete.wait()
        assert received == b"0123456789" * 5
        assert whole[:10] == bytes(10)
        assert whole[20:] == bytes(80)
        await finished(transport, protocol, peer)


async def test_the_end_is_told_to_a_buffered_protocol(loop, side):
    async with secured(loop, side, ViewRecorder(loop, 100)) as (transport, protocol, peer):
        await asyncio.to_thread(peer.send, b"last")
        await asyncio.to_thread(peer.shut)
        await protocol.eof
        assert await protocol.lost is None
        assert protocol.data == b"last"
        assert transport.is_closing()


async def test_protocols_of_both_kinds_can_follow_each_other(loop, side):
    async with secured(loop, side) as (transport, first, peer):
        await asyncio.to_thread(peer.send, b"one")
        assert await first.received(3) == b"one"
        second = ViewRecorder(loop, 100)
        transport.set_protocol(second)
        await asyncio.to_thread(peer.send, b"two")
        assert await second.received(3) == b"two"
        third = Recorder(loop)
        transport.set_protocol(third)
        await asyncio.to_thread(peer.send, b"three")
        assert await third.received(5) == b"three"
        await finished(transport, third, peer)
        assert (first.data, second.data) == (b"one", b"two")
        first.lost.set_result(None)


async def test_pausing_keeps_the_buffer_untouched(loop, side):
    async with secured(loop, side, ViewRecorder(loop, 100)) as (transport, protocol, peer):
        transport.pause_reading()
        await asyncio.to_thread(peer.send, b"data")
        await asyncio.sleep(0.01)
        assert protocol.buffer == bytearray(100)
        transport.resume_reading()
        assert await protocol.received(4) == b"data"
        await finished(transport, protocol, peer)
