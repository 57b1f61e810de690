"""How child processes end: killed, reaped by others, outliving pipes and loops; and starts that fail."""

from __future__ import annotations

import asyncio
import asyncio.subprocess as sub
import contextlib
import errno
import gc
import logging
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading

import pytest
from children import without_debug_mode
from leaks import children


async def python(program: str, *arguments: str, **options) -> sub.Process:
    """Start this interpreter on a program given as text."""
    return await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", program, *arguments, **options)


async def sleeper(**options) -> sub.Process:
    """Start a process that runs until it is killed."""
    return await asyncio.create_subprocess_exec("sleep", "100", **options)


async def until_no_children() -> None:
    async with asyncio.timeout(20):
        while children():
            await asyncio.sleep(0.005)


def wait_for_exit(pid: int) -> None:
    """Block until the process has exited, and leave its status to be read."""
    with contextlib.suppress(ChildProcessError):  # read already by the thread that asyncio 3.11 waits with
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


@pytest.fixture(autouse=True)
def no_process_left():
    """A test may leave no process behind, so that its failure is not its neighbour's."""
    yield
    left = children()
    for pid in left:
        os.kill(int(pid), signal.SIGKILL)
        os.waitpid(int(pid), 0)
    assert left == []


@pytest.fixture(params=["pidfd", "ENOSYS", "EMFILE", "EPERM"])
def pidfds(request, monkeypatch, is_aioxide) -> str:
    """Let pidfd_open work, or fail: on old kernels, without free descriptors, in a sandbox."""
    if request.param != "pidfd":
        if not is_aioxide:
            pytest.skip("asyncio chooses how it waits once per process")
        number = getattr(errno, request.param)

        def fail(pid: int, flags: int = 0) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "pidfd_open", fail)
    return request.param


# However it is waited for.


async def test_exits_are_noticed(loop, pidfds):
    processes = await asyncio.gather(*(python(f"raise SystemExit({code})") for code in range(5)))
    assert await asyncio.gather(*(process.wait() for process in processes)) == [0, 1, 2, 3, 4]
    killed = await sleeper(stdin=sub.PIPE, stdout=sub.PIPE)
    killed.kill()
    assert await killed.communicate() == (b"", None)
    assert killed.returncode == -signal.SIGKILL
    assert children() == []


async def test_signals_can_be_sent_until_the_end(loop, pidfds):
    process = await python(
        "import signal, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('usr1', flush=True))\n"
        "print('ready', flush=True)\n"
        # pause() would not notice a signal that came a moment before it.
        "while True: time.sleep(0.01)\n",
        stdout=sub.PIPE,
    )
    assert await process.stdout.readline() == b"ready\n"
    process.send_signal(0)
    for _ in range(3):
        process.send_signal(signal.SIGUSR1)
        assert await process.stdout.readline() == b"usr1\n"
    process.terminate()
    assert await process.wait() == -signal.SIGTERM
    # Up to here asyncio 3.14 does nothing instead: it may close the pipes after the process was reaped.
    while process._transport._proc is not None:
        await asyncio.sleep(0.001)
    for send in (process.terminate, process.kill, lambda: process.send_signal(signal.SIGUSR1)):
        with pytest.raises(ProcessLookupError):
            send()


async def test_an_invalid_signal_is_an_error(loop, pidfds):
    process = await sleeper()
    with pytest.raises(OSError, match="Invalid argument"):
        process.send_signal(10_000)
    process.kill()
    await process.wait()


async def test_a_signal_between_the_exit_and_its_notice_does_nothing(loop, pidfds, is_aioxide):
    process = await sleeper()
    os.kill(process.pid, signal.SIGKILL)
    wait_for_exit(process.pid)
    for send in (process.kill, process.terminate, lambda: process.send_signal(signal.SIGHUP)):
        send()
    code = await process.wait()
    # Before 3.13 asyncio reads the status when it sends, and then does not know it.
    assert code == -signal.SIGKILL or (code == 255 and not is_aioxide)


async def test_a_status_read_by_somebody_else_is_255(loop, pidfds, caplog, is_aioxide):
    process = await sleeper()
    with caplog.at_level(logging.WARNING, "asyncio"):
        os.kill(process.pid, signal.SIGTERM)
        try:
            assert os.waitpid(process.pid, 0)[1] == signal.SIGTERM
        except ChildProcessError:
            if is_aioxide and pidfds == "pidfd":
                raise
            await process.wait()
            pytest.skip("without a pidfd a thread waits for the child, and it was first")
        process.kill()
        assert await process.wait() == 255
    assert f"pid {process.pid}" in caplog.text
    assert "will report returncode 255" in caplog.text


@pytest.mark.parametrize("how", ["ignored", "handled"])
async def test_sigchld_belongs_to_the_program(loop, how, caplog, pidfds):
    """Ignored, it makes the kernel reap: signal(7), sigaction(2)."""
    notices: list[int] = []
    handler = signal.SIG_IGN if how == "ignored" else lambda number, frame: notices.append(number)
    previous = signal.signal(signal.SIGCHLD, handler)
    try:
        processes = [await python("raise SystemExit(3)") for _ in range(2)]
        with caplog.at_level(logging.CRITICAL, "asyncio"):
            codes = [await process.wait() for process in processes]
    finally:
        signal.signal(signal.SIGCHLD, previous)
    assert codes == ([255, 255] if how == "ignored" else [3, 3])
    assert set(notices) == (set() if how == "ignored" else {signal.SIGCHLD})


async def test_the_loops_own_handler_of_sigchld_is_called(loop, pidfds):
    noticed = asyncio.Event()
    loop.add_signal_handler(signal.SIGCHLD, noticed.set)
    process = await python("raise SystemExit(3)")
    async with asyncio.timeout(20):
        await noticed.wait()
    assert await process.wait() == 3
    assert loop.remove_signal_handler(signal.SIGCHLD)


# Many.


async def test_many_wait_for_one_process(loop):
    process = await python("input()", stdin=sub.PIPE)
    waiters = [asyncio.create_task(process.wait()) for _ in range(20)]
    await asyncio.sleep(0)
    for waiter in waiters[::2]:
        waiter.cancel()
    await asyncio.sleep(0)
    process.stdin.write(b"\n")
    results = await asyncio.gather(*waiters, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
    assert results[1::2] == [0] * 10
    assert await process.wait() == 0


@pytest.fixture
def many_descriptors():
    """Raise the limit of open files as far as it goes: a pipe and a pidfd for each process are many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    if wanted < 2048:
        pytest.skip(f"only {hard} files may be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.timeout(120)
async def test_five_hundred_at_once(loop, many_descriptors):
    """All of them run at the same time: none ends before it is told to."""
    count = 500
    gate_reader, gate_writer = os.pipe()
    slots = asyncio.Semaphore(50)

    async def start(number: int) -> sub.Process:
        async with slots:
            return await asyncio.create_subprocess_shell(
                f"read line; echo {number}; exit {number % 256}", stdin=gate_reader, stdout=sub.PIPE
            )

    processes = await asyncio.gather(*(start(number) for number in range(count)))
    assert [process.returncode for process in processes] == [None] * count
    os.close(gate_reader)
    os.close(gate_writer)
    outputs = await asyncio.gather(*(process.communicate() for process in processes))
    assert [output for output, _ in outputs] == [b"%d\n" % number for number in range(count)]
    assert [process.returncode for process in processes] == [number % 256 for number in range(count)]
    assert children() == []


# Pipes and ends.


async def test_a_grandchild_keeps_the_pipe_open_after_the_exit(loop):
    gate_reader, gate_writer = os.pipe()
    process = await asyncio.create_subprocess_shell(
        "exec 3<&0; (read line <&3; echo grandchild) & echo child; exit 5",
        stdin=gate_reader,
        stdout=sub.PIPE,
    )
    os.close(gate_reader)
    assert await process.stdout.readline() == b"child\n"
    async with asyncio.timeout(20):
        while process.returncode is None:
            await asyncio.sleep(0.001)
    assert process.returncode == 5
    reading = asyncio.create_task(process.stdout.read())
    done, _ = await asyncio.wait([reading], timeout=0.05)
    assert not done
    os.close(gate_writer)
    assert await reading == b"grandchild\n"
    assert await process.wait() == 5


@pytest.mark.parametrize("size", [1, 1 << 16, 1 << 22])
async def test_communicate_survives_a_process_that_does_not_read_to_the_end(loop, size):
    process = await asyncio.create_subprocess_shell("exec <&-; echo done", stdin=sub.PIPE, stdout=sub.PIPE)
    async with asyncio.timeout(20):
        assert await process.communicate(bytes(size)) == (b"done\n", None)
    assert process.returncode == 0


async def test_drain_tells_of_a_process_that_is_gone(loop):
    async def write_for_ever(stdin: asyncio.StreamWriter) -> None:
        while True:
            stdin.write(bytes(1 << 16))
            await stdin.drain()

    process = await python("pass", stdin=sub.PIPE)
    await process.wait()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        await asyncio.wait_for(write_for_ever(process.stdin), 20)
    del process
    gc.collect()


async def test_communicate_without_input_closes_stdin(loop):
    process = await asyncio.create_subprocess_exec("cat", stdin=sub.PIPE, stdout=sub.PIPE)
    assert await process.communicate(b"") == (b"", None)
    if sys.version_info >= (3, 12):
        process = await asyncio.create_subprocess_exec("cat", stdin=sub.PIPE, stdout=sub.PIPE)
        assert await process.communicate() == (b"", None)


async def test_a_process_that_closes_its_pipes_can_be_waited_for(loop):
    process = await asyncio.create_subprocess_shell(
        "exec >&- 2>&-; read line; exit 4", stdin=sub.PIPE, stdout=sub.PIPE, stderr=sub.PIPE
    )
    assert await process.stdout.read() == b""
    assert await process.stderr.read() == b""
    assert process.returncode is None
    process.stdin.write_eof()
    assert await process.wait() == 4


# Cancelling.


@pytest.mark.parametrize("turns", range(8))
async def test_a_start_cancelled_twice_leaves_nothing(loop, turns, pidfds, is_aioxide):
    if not is_aioxide and sys.version_info < (3, 12):
        pytest.skip("asyncio drops a child that may still run")
    task = asyncio.create_task(sleeper(stdin=sub.PIPE, stdout=sub.PIPE, stderr=sub.PIPE))
    for _ in range(2):
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
    await until_no_children()
    # Cancelled twice, the start leaves it to a task of the transport to close the pipes.
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
    gc.collect()


@pytest.mark.parametrize("turns", range(8))
async def test_a_cancelled_communicate_loses_nothing_but_its_result(loop, turns):
    process = await asyncio.create_subprocess_exec("cat", stdin=sub.PIPE, stdout=sub.PIPE)
    talk = asyncio.create_task(process.communicate(b"data"))
    for _ in range(turns):
        await asyncio.sleep(0)
    talk.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await talk
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
    assert children() == []


async def test_a_cancelled_wait_can_be_repeated(loop):
    process = await python("input()", stdin=sub.PIPE)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.wait(), 0.001)
    process.stdin.close()
    assert await process.wait() == 1


# Starts that fail.


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (["/does/not/exist"], {}, FileNotFoundError),
        (["no-such-program-in-the-path"], {}, FileNotFoundError),
        (["/etc/passwd"], {}, PermissionError),
        (["/"], {}, PermissionError),
        (["true"], {"cwd": "/does/not/exist"}, FileNotFoundError),
        (["true"], {"cwd": "/etc/passwd"}, NotADirectoryError),
        (["x" * (1 << 20)], {}, OSError),
        (["true", "null\0byte"], {}, ValueError),
        (["true"], {"env": {"a=b": "c"}}, ValueError),
        (["true"], {"stdin": 9999}, OSError),
        (["true"], {"pass_fds": (-1,)}, ValueError),
    ],
    ids=str,
)
async def test_a_start_that_fails_leaves_nothing(loop, arguments, options, error):
    streams = {"stdin": sub.PIPE, "stdout": sub.PIPE, "stderr": sub.PIPE, **options}
    with pytest.raises(error):
        await asyncio.create_subprocess_exec(*arguments, **streams)
    assert children() == []
    gc.collect()


async def test_a_protocol_factory_that_fails_starts_nothing(loop):
    def fail() -> None:
        raise LookupError("on purpose")

    with pytest.raises(LookupError):
        await loop.subprocess_exec(fail, "sleep", "100")
    assert children() == []


async def test_a_connection_made_that_fails_is_reported(loop, reported):
    class Failing(asyncio.SubprocessProtocol):
        def connection_made(self, transport):
            raise LookupError("on purpose")

    transport, _ = await loop.subprocess_exec(Failing, "sleep", "100")
    transport.close()
    await transport._wait()
    assert isinstance(reported.pop()["exception"], LookupError)


async def test_no_thread_for_the_fallback_is_an_error_that_leaves_nothing(loop, is_aioxide, monkeypatch):
    if not is_aioxide:
        pytest.skip("asyncio chooses how it waits once per process")

    def fail(*arguments: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(os, "pidfd_open", fail)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        await sleeper(stdin=sub.PIPE, stdout=sub.PIPE)
    assert children() == []
    gc.collect()


# Loops and processes that end in the wrong order.

PRELUDE = """
import asyncio, asyncio.subprocess as sub, functools, gc, os, select, signal, sys, threading, time, warnings
name = sys.argv[1]
if name == "asyncio":
    factory = asyncio.SelectorEventLoop
else:
    import aioxide
    factory = functools.partial(aioxide.EventLoop, driver=name)
"""


def run_program(loop_name: str, body: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `body` in a process of its own, where `factory` makes the loop."""
    return subprocess.run(
        [sys.executable, *options, "-c", PRELUDE + textwrap.dedent(body), loop_name],
        capture_output=True,
        text=True,
        timeout=50,
        env=without_debug_mode(PYTHONWARNINGS=""),
    )


def test_a_process_outlives_its_loop(loop_name, loop_factory):
    done = run_program(
        loop_name,
        """
        async def main():
            return await asyncio.create_subprocess_shell("read line; exit 3", stdin=reader)
        reader, writer = os.pipe()
        loop = factory()
        process = loop.run_until_complete(main())
        os.close(reader)
        loop.close()
        os.kill(process.pid, 0)
        pidfd = os.pidfd_open(process.pid)
        print(select.select([pidfd], [], [], 0)[0])
        os.close(writer)
        print(select.select([pidfd], [], [], 20)[0] == [pidfd])
        """,
    )
    assert done.stdout == "[]\nTrue\n", done.stderr
    assert "Traceback" not in done.stderr


def test_a_transport_that_outlives_its_loop_warns_and_kills(loop_name, loop_factory, is_aioxide):
    if not is_aioxide and sys.version_info < (3, 14):
        pytest.skip("asyncio fails to close the pipes and leaves the process alone")
    done = run_program(
        loop_name,
        """
        async def main():
            return await asyncio.create_subprocess_exec("sleep", "100", stdin=sub.PIPE, stdout=sub.PIPE)
        loop = factory()
        process = loop.run_until_complete(main())
        popen = process._transport.get_extra_info("subprocess")
        loop.close()
        del process
        gc.collect()
        print(popen.wait())
        """,
        "-Wdefault",
    )
    assert done.stdout == "-9\n", done.stderr
    assert "ResourceWarning: unclosed transport <_" in done.stderr
    assert "Traceback" not in done.stderr


def test_asyncio_run_with_a_running_process_ends(loop_name, loop_factory):
    done = run_program(
        loop_name,
        """
        async def main():
            streams = dict(stdout=sub.PIPE, stderr=sub.DEVNULL)
            process = await asyncio.create_subprocess_exec("sleep", "100", **streams)
            print(process.pid)
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
        """,
    )
    assert done.returncode == 0, done.stderr
    pid = int(done.stdout)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("way", ["_exit", "exit", "exception"])
def test_a_program_that_ends_leaves_its_processes_alone(loop_name, loop_factory, way):
    """Unless it closes their transports: then they are killed."""
    ends = {"_exit": "os._exit(0)", "exit": "sys.exit(0)", "exception": "raise LookupError"}
    done = run_program(
        loop_name,
        f"""
        async def main():
            streams = dict(stdout=sub.DEVNULL, stderr=sub.DEVNULL)
            process = await asyncio.create_subprocess_exec("sleep", "100", **streams)
            os.write(1, b"%d\\n" % process.pid)
            {ends[way]}
        loop = factory()
        loop.run_until_complete(main())
        """,
    )
    pid = int(done.stdout.split()[0])
    if way == "_exit":
        os.kill(pid, 0)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_a_closed_loop_stops_watching(loop_factory, is_aioxide, reported):
    if not is_aioxide:
        pytest.skip("asyncio leaves the pidfd open")
    before = len(os.listdir("/proc/self/fd"))
    loop = loop_factory()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    transport, _ = loop.run_until_complete(
        loop.subprocess_exec(asyncio.SubprocessProtocol, "sleep", "100", stdin=None, stdout=None, stderr=None)
    )
    loop.close()
    assert len(os.listdir("/proc/self/fd")) == before
    process = transport._proc
    transport.close()
    assert process.wait() == -signal.SIGKILL
    assert reported == []


def test_a_loop_that_stops_while_a_process_runs_goes_on_later(loop):
    process = loop.run_until_complete(python("input()", stdin=sub.PIPE))
    loop.run_until_complete(asyncio.sleep(0.001))
    process.kill()
    wait_for_exit(process.pid)
    assert loop.run_until_complete(process.wait()) == -signal.SIGKILL


def test_a_process_is_started_on_one_thread_and_awaited_on_another(loop_factory):
    loop = loop_factory()
    process = loop.run_until_complete(python("input()", stdin=sub.PIPE))
    results: list[int] = []

    async def end() -> int:
        process.stdin.close()
        return await process.wait()

    thread = threading.Thread(target=lambda: results.append(loop.run_until_complete(end())))
    thread.start()
    thread.join(20)
    assert results == [1]
    loop.close()


async def test_closing_the_transport_of_a_running_process_says_so_in_debug_mode(loop, caplog):
    loop.set_debug(True)
    with caplog.at_level(logging.DEBUG, "asyncio"):
        transport, _ = await loop.subprocess_exec(asyncio.SubprocessProtocol, "sleep", "100")
        pid = transport.get_pid()
        assert f"process 'sleep' created: pid {pid}" in caplog.text
        transport.close()
        assert "Close running child process: kill <" in caplog.text
        await transport._wait()
        assert "exited with return code -9" in caplog.text
    assert "returncode=-9" in repr(transport)


async def test_a_transport_tells_its_state(loop):
    transport, _ = await loop.subprocess_exec(
        asyncio.SubprocessProtocol, "sleep", "100", stdin=sub.PIPE, stdout=sub.PIPE, stderr=sub.STDOUT
    )
    pid = transport.get_pid()
    text = repr(transport)
    assert f"pid={pid}" in text
    assert "running" in text
    assert "stdin=<" in text
    protocol = asyncio.SubprocessProtocol()
    transport.set_protocol(protocol)
    assert transport.get_protocol() is protocol
    transport.close()
    assert "closed" in repr(transport)
    await transport._wait()
