"""Subprocesses: starting, pipes, ends, kills, many at once and from any thread."""

from __future__ import annotations

import asyncio
import asyncio.subprocess as sub
import gc
import os
import signal
import subprocess
import sys
import threading

import pytest
from leaks import children


async def python(program: str, *arguments: str, **options) -> sub.Process:
    """Start this interpreter on a program given as text."""
    return await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", program, *arguments, **options)


async def test_communicate_carries_both_ways(loop):
    program = (
        "import sys; data = sys.stdin.buffer.read(); "
        "sys.stdout.buffer.write(data[::-1]); sys.stderr.write('err')"
    )
    process = await python(program, stdin=sub.PIPE, stdout=sub.PIPE, stderr=sub.PIPE)
    assert await process.communicate(b"input") == (b"tupni", b"err")
    assert process.returncode == 0


@pytest.mark.parametrize("code", [0, 1, 7, 255])
async def test_the_exit_code_is_the_exit_code(loop, code):
    process = await python(f"input(); raise SystemExit({code})", stdin=sub.PIPE)
    assert process.returncode is None
    process.stdin.write(b"\n")
    assert await process.wait() == code
    assert process.returncode == code
    assert await process.wait() == code


async def test_a_signal_is_a_negative_exit_code(loop):
    for send, number in (
        (lambda process: process.kill(), signal.SIGKILL),
        (lambda process: process.terminate(), signal.SIGTERM),
        (lambda process: process.send_signal(signal.SIGUSR1), signal.SIGUSR1),
    ):
        # Without pipes: from Python 3.14 on `wait` does not wait for them, and until they are closed a signal
        # is ignored instead of refused.
        process = await python("import time; time.sleep(100)")
        send(process)
        assert await process.wait() == -number
        with pytest.raises(ProcessLookupError):
            send(process)


async def test_a_shell_runs_a_line(loop):
    process = await asyncio.create_subprocess_shell(
        "echo one; echo two >&2; exit 3", stdout=sub.PIPE, stderr=sub.PIPE
    )
    assert await process.communicate() == (b"one\n", b"two\n")
    assert process.returncode == 3


async def test_a_megabyte_in_both_directions_is_exact(loop):
    data = os.urandom(4 << 20)
    process = await asyncio.create_subprocess_exec("cat", stdin=sub.PIPE, stdout=sub.PIPE)
    assert (await process.communicate(data))[0] == data
    assert process.returncode == 0


async def test_lines_arrive_while_the_process_runs(loop):
    process = await python(
        "import sys\nfor line in sys.stdin: print(line.upper(), end='', flush=True)",
        stdin=sub.PIPE,
        stdout=sub.PIPE,
    )
    for number in range(10):
        process.stdin.write(b"line %d\n" % number)
        await process.stdin.drain()
        assert await process.stdout.readline() == b"LINE %d\n" % number
    process.stdin.close()
    assert await process.wait() == 0


async def test_stderr_can_be_joined_to_stdout(loop):
    process = await python(
        "import os; os.write(1, b'out '); os.write(2, b'err')", stdout=sub.PIPE, stderr=sub.STDOUT
    )
    assert await process.communicate() == (b"out err", None)


async def test_streams_can_be_thrown_away(loop):
    process = await python(
        "print('nobody reads this')", stdin=sub.DEVNULL, stdout=sub.DEVNULL, stderr=sub.DEVNULL
    )
    assert (process.stdin, process.stdout, process.stderr) == (None, None, None)
    assert await process.wait() == 0


async def test_files_can_be_given(loop, tmp_path):
    with open(tmp_path / "output", "w+b") as file:
        process = await python("print('to the file')", stdout=file)
        assert await process.wait() == 0
        file.seek(0)
        assert file.read() == b"to the file\n"


async def test_options_reach_popen(loop, tmp_path):
    process = await python(
        "import os; print(os.getcwd(), os.environ['NAME'], os.getsid(0) == os.getpid())",
        stdout=sub.PIPE,
        cwd=tmp_path,
        env={"NAME": "value"},
        start_new_session=True,
    )
    output, _ = await process.communicate()
    assert output.decode().split() == [str(tmp_path), "value", "True"]


async def test_a_process_that_does_not_read_breaks_no_pipe_of_ours(loop):
    process = await python("pass", stdin=sub.PIPE)
    await process.communicate(bytes(1 << 20))
    assert process.returncode == 0


async def test_a_process_that_closes_its_output_can_still_be_awaited(loop):
    process = await python("import os, time; os.close(1); time.sleep(0.1)", stdout=sub.PIPE)
    assert await process.stdout.read() == b""
    assert await process.wait() == 0


async def test_a_timeout_leaves_the_process_to_be_killed(loop):
    process = await python("import time; time.sleep(100)")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(process.wait(), 0.05)
    assert process.returncode is None
    process.kill()
    assert await process.wait() == -signal.SIGKILL


async def test_a_cancelled_communicate_can_be_followed_by_a_kill(loop):
    process = await python("import time; time.sleep(100)", stdin=sub.PIPE, stdout=sub.PIPE)
    task = asyncio.create_task(process.communicate(b"x"))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    process.kill()
    await process.wait()


async def test_waiting_does_not_stop_the_loop(loop):
    process = await python("input()", stdin=sub.PIPE)
    waiting = asyncio.create_task(process.wait())
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert not waiting.done()
    process.stdin.write(b"\n")
    assert await waiting == 0


async def test_the_child_of_somebody_else_is_left_alone(loop):
    foreign = subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(5)"])
    process = await python("raise SystemExit(6)")
    assert await process.wait() == 6
    assert await asyncio.to_thread(foreign.wait) == 5


async def test_no_handler_of_sigchld_is_used(loop, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio may use one")
    before = signal.getsignal(signal.SIGCHLD)
    process = await python("pass")
    assert signal.getsignal(signal.SIGCHLD) is before
    await process.wait()


def test_a_loop_on_another_thread_starts_processes(loop_factory):
    results: list[object] = []

    async def main():
        process = await python("print('thread')", stdout=sub.PIPE)
        results.append(await process.communicate())
        results.append(process.returncode)

    def work():
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count(0) == 4
    assert results.count((b"thread\n", None)) == 4


async def test_a_missing_program_is_file_not_found(loop):
    with pytest.raises(FileNotFoundError):
        await asyncio.create_subprocess_exec("/does/not/exist", stdin=sub.PIPE, stdout=sub.PIPE)


async def test_a_file_that_is_no_program_is_a_permission_error(loop, tmp_path):
    (tmp_path / "file").write_text("no program")
    with pytest.raises(PermissionError):
        await asyncio.create_subprocess_exec(str(tmp_path / "file"), stdout=sub.PIPE)


@pytest.mark.parametrize(
    "options",
    [{"universal_newlines": True}, {"shell": True}, {"bufsize": 1}, {"encoding": "utf-8"}, {"text": True}],
    ids=str,
)
async def test_options_that_asyncio_forbids_are_value_errors(loop, options):
    with pytest.raises(ValueError, match="must"):
        await loop.subprocess_exec(asyncio.SubprocessProtocol, sys.executable, **options)


async def test_wrong_types_are_refused(loop):
    with pytest.raises(ValueError, match="cmd must be a string"):
        await loop.subprocess_shell(asyncio.SubprocessProtocol, 42)
    with pytest.raises(TypeError):
        await loop.subprocess_exec(asyncio.SubprocessProtocol, 42)


class Protocol(asyncio.SubprocessProtocol):
    """Writes down what it is told."""

    def __init__(self, loop):
        self.calls: list[object] = []
        self.data: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
        self.exited = loop.create_future()
        self.lost = loop.create_future()

    def connection_made(self, transport):
        self.calls.append("connection_made")

    def pipe_data_received(self, fd, data):
        self.data[fd] += data

    def pipe_connection_lost(self, fd, error):
        self.calls.append(("pipe_connection_lost", fd, error))

    def process_exited(self):
        self.calls.append("process_exited")
        self.exited.set_result(None)

    def connection_lost(self, error):
        self.calls.append("connection_lost")
        self.lost.set_result(error)


async def test_a_subprocess_protocol_is_called_in_order(loop):
    transport, protocol = await loop.subprocess_exec(
        lambda: Protocol(loop),
        sys.executable,
        "-S",
        "-c",
        "import os; os.write(1, b'out'); os.write(2, b'err')",
    )
    assert isinstance(transport, asyncio.SubprocessTransport)
    assert transport.get_pid() > 0
    for number in range(3):
        assert transport.get_pipe_transport(number) is not None
    assert transport.get_pipe_transport(3) is None
    assert await protocol.lost is None
    assert protocol.data == {1: b"out", 2: b"err"}
    assert protocol.calls[0] == "connection_made"
    assert protocol.calls[-1] == "connection_lost"
    assert set(protocol.calls[1:-1]) == {
        ("pipe_connection_lost", 0, None),
        ("pipe_connection_lost", 1, None),
        ("pipe_connection_lost", 2, None),
        "process_exited",
    }
    assert transport.get_returncode() == 0
    transport.close()


async def test_closing_a_subprocess_transport_kills_the_process(loop):
    transport, protocol = await loop.subprocess_exec(
        lambda: Protocol(loop), sys.executable, "-S", "-c", "import time; time.sleep(100)"
    )
    assert not transport.is_closing()
    transport.close()
    assert transport.is_closing()
    await protocol.lost
    assert transport.get_returncode() == -signal.SIGKILL
    transport.close()


@pytest.mark.parametrize("turns", range(6))
async def test_a_start_cancelled_at_every_await_leaves_no_process(loop, turns):
    task = asyncio.create_task(python("import time; time.sleep(100)", stdin=sub.PIPE, stdout=sub.PIPE))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    try:
        process = await task
    except asyncio.CancelledError:
        pass
    else:
        process.kill()
        await process.wait()
        del process
    del task
    async with asyncio.timeout(10):
        while children():
            await asyncio.sleep(0.01)
    gc.collect()


async def test_no_child_stays_a_zombie(loop):
    processes = await asyncio.gather(*(python("pass") for _ in range(20)))
    await asyncio.gather(*(process.wait() for process in processes))
    assert children() == []


async def test_a_process_dropped_while_it_runs_is_still_reaped(loop, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio's watchers differ in this")
    await python("pass")
    async with asyncio.timeout(10):
        while children():
            await asyncio.sleep(0.01)
            gc.collect()
