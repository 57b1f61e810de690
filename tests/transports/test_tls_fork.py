"""TLS connections of the parent in a forked child: refused there, and unharmed here."""

from __future__ import annotations

import asyncio
import os

import pytest
from tls_peers import NAME, client_context, server_context

pytestmark = [
    pytest.mark.usefixtures("tls_engine"),
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]


async def test_a_child_cannot_use_the_parents_connection(loop, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio's child writes into the parent's connection")

    async def echo(reader, writer):
        while line := await reader.readline():
            writer.write(line)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_context())
    reader, writer = await asyncio.open_connection(
        *server.sockets[0].getsockname(), ssl=client_context(), server_hostname=NAME
    )
    writer.write(b"before\n")
    assert await reader.readline() == b"before\n"
    transport = writer.transport
    uses = (
        lambda: transport.write(b"from the child\n"),
        lambda: transport.write(bytes(1 << 20)),
        lambda: transport.writelines([b"from the child\n"]),
        transport.close,
        transport.abort,
        transport.pause_reading,
    )
    child = os.fork()
    if not child:
        refused = 0
        try:
            for use in uses:
                try:
                    use()
                except RuntimeError as error:
                    refused += "belongs to the parent process" in str(error)
        finally:
            os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == len(uses)
    for _ in range(3):
        writer.write(b"after\n")
        assert await reader.readline() == b"after\n"
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
