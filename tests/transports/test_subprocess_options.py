"""Every keyword of subprocess.Popen reaches it, asyncio's refusals hold, and streams can be anything."""

from __future__ import annotations

import asyncio
import asyncio.subprocess as sub
import fcntl
import os
import signal
import socket
import subprocess
import sys

import pytest

REQUIRES_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")


async def output_of(program: str, *arguments: str, **options) -> str:
    """Run this interpreter on a program given as text; return what it printed."""
    options.setdefault("stdout", sub.PIPE)
    process = await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", program, *arguments, **options)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode().strip()


async def test_preexec_fn_runs_in_the_child_before_the_program(loop):
    def prepare() -> None:
        os.chdir("/")
        os.nice(3)

    program = "import os; print(os.getcwd(), os.nice(0))"
    assert await output_of(program, preexec_fn=prepare, cwd="/tmp") == f"/ {min(os.nice(0) + 3, 19)}"


async def test_a_preexec_fn_that_fails_starts_nothing(loop):
    def fail() -> None:
        raise LookupError("on purpose")

    with pytest.raises(subprocess.SubprocessError, match="preexec_fn"):
        await output_of("pass", preexec_fn=fail)


async def test_only_the_descriptors_that_are_passed_arrive(loop):
    reader, writer = os.pipe()
    other = os.dup(writer)
    for descriptor in (writer, other):
        os.set_inheritable(descriptor, True)
    program = (
        "import os, sys\n"
        "os.write(int(sys.argv[1]), b'passed')\n"
        "try: os.fstat(int(sys.argv[2]))\n"
        "except OSError: print('closed')\n"
    )
    assert await output_of(program, str(writer), str(other), pass_fds=(writer,)) == "closed"
    os.close(writer)
    os.close(other)
    with open(reader, "rb") as file:
        assert file.read() == b"passed"


async def test_close_fds_can_be_switched_off(loop):
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    await output_of("import os, sys; os.write(int(sys.argv[1]), b'kept')", str(writer), close_fds=False)
    os.close(writer)
    with open(reader, "rb") as file:
        assert file.read() == b"kept"


async def test_the_child_gets_no_descriptor_of_the_loop(loop):
    """Neither epoll instance nor ring, whatever close_fds says."""
    process = await asyncio.create_subprocess_exec(
        "ls", "-l", "/proc/self/fd", stdout=sub.PIPE, close_fds=False
    )
    output, _ = await process.communicate()
    assert b"pipe:" in output
    assert b"anon_inode" not in output


@REQUIRES_ROOT
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"user": 65534}, "65534 0"),
        ({"user": "nobody"}, "65534 0"),
        ({"group": 65534}, "0 65534"),
        ({"user": 65534, "group": 65534, "extra_groups": []}, "65534 65534"),
    ],
    ids=str,
)
async def test_user_and_group_are_changed(loop, options, expected):
    process = await asyncio.create_subprocess_shell(
        "echo -n $(id -u) $(id -g)", stdout=sub.PIPE, cwd="/", **options
    )
    assert (await process.communicate())[0].decode() == expected


@REQUIRES_ROOT
async def test_extra_groups_are_set(loop):
    assert await output_of("import os; print(os.getgroups())", extra_groups=[7, 9]) == "[7, 9]"


@pytest.mark.parametrize("name", ["user", "group"])
async def test_a_user_that_does_not_exist_is_an_error(loop, name):
    with pytest.raises((KeyError, LookupError)):
        await output_of("pass", **{name: "no-such-name-here"})


async def test_umask_is_set(loop):
    assert await output_of("import os; print(oct(os.umask(0)))", umask=0o27) == "0o27"


async def test_the_directory_and_the_environment_are_given(loop, tmp_path):
    program = "import os; print(os.getcwd(), sorted(n for n in os.environ if n != 'LC_CTYPE'))"
    assert await output_of(program, cwd=os.fsencode(tmp_path), env={b"NAME": b"x"}) == f"{tmp_path} ['NAME']"


async def test_sessions_and_process_groups(loop):
    program = "import os; print(os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid())"
    assert await output_of(program, start_new_session=True) == "True True"
    assert await output_of(program, process_group=0) == "False True"
    assert await output_of(program) == "False False"


async def test_pipesize_is_that_of_the_pipe(loop):
    options = {"stdin": sub.PIPE, "stdout": sub.PIPE, "pipesize": 128 * 1024}
    process = await asyncio.create_subprocess_exec("cat", **options)
    transport = process._transport.get_pipe_transport(1)
    assert fcntl.fcntl(transport.get_extra_info("pipe"), fcntl.F_GETPIPE_SZ) == 128 * 1024
    assert await process.communicate(b"x") == (b"x", None)


@pytest.mark.parametrize("restore", [True, False])
async def test_signals_that_python_ignores_are_restored(loop, restore):
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", "grep SigIgn /proc/self/status", stdout=sub.PIPE, restore_signals=restore
    )
    ignored = int((await process.communicate())[0].split()[1], 16)
    assert bool(ignored & 1 << (signal.SIGPIPE - 1)) is not restore


async def test_the_executable_may_differ_from_the_first_argument(loop):
    process = await asyncio.create_subprocess_exec(
        "another-name", "-c", "echo $0", executable="/bin/sh", stdout=sub.PIPE
    )
    assert await process.communicate() == (b"another-name\n", None)
    process = await asyncio.create_subprocess_shell("echo $BASH", executable="/bin/bash", stdout=sub.PIPE)
    assert await process.communicate() == (b"/bin/bash\n", None)


@pytest.mark.parametrize("options", [{"startupinfo": object()}, {"creationflags": 1}], ids=",".join)
async def test_what_only_windows_has_is_refused(loop, options):
    with pytest.raises(ValueError, match="only supported on Windows"):
        await output_of("pass", **options)


async def test_an_unknown_keyword_is_a_type_error(loop):
    with pytest.raises(TypeError, match="no_such_option"):
        await output_of("pass", no_such_option=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"universal_newlines": True}, "universal_newlines must be False"),
        ({"bufsize": 1}, "bufsize must be 0"),
        ({"text": True}, "text must be False"),
        ({"encoding": "utf-8"}, "encoding must be None"),
        ({"errors": "strict"}, "errors must be None"),
    ],
    ids=str,
)
@pytest.mark.parametrize("start", ["exec", "shell"])
async def test_what_streams_of_bytes_cannot_do_is_refused(loop, start, options, message):
    function = asyncio.create_subprocess_exec if start == "exec" else asyncio.create_subprocess_shell
    with pytest.raises(ValueError, match=message):
        await function("true", **options)


async def test_shell_is_what_the_function_says(loop):
    with pytest.raises(ValueError, match="shell must be False"):
        await loop.subprocess_exec(asyncio.SubprocessProtocol, "true", shell=True)
    with pytest.raises(ValueError, match="shell must be True"):
        await loop.subprocess_shell(asyncio.SubprocessProtocol, "true", shell=False)


async def test_arguments_may_be_bytes_and_paths(loop, tmp_path):
    process = await asyncio.create_subprocess_exec(b"echo", "-n", b"bytes", tmp_path, stdout=sub.PIPE)
    assert await process.communicate() == (b"bytes " + os.fsencode(tmp_path), None)
    process = await asyncio.create_subprocess_shell(b"echo -n line", stdout=sub.PIPE)
    assert await process.communicate() == (b"line", None)


# Streams.


async def test_streams_can_be_files(loop, tmp_path):
    (tmp_path / "in").write_bytes(b"input")
    with (
        open(tmp_path / "in", "rb") as given,
        open(tmp_path / "out", "wb") as out,
        open(tmp_path / "err", "wb") as err,
    ):
        process = await asyncio.create_subprocess_shell(
            "cat; echo err >&2", stdin=given, stdout=out, stderr=err
        )
        assert (process.stdin, process.stdout, process.stderr) == (None, None, None)
        assert await process.communicate() == (None, None)
    assert (tmp_path / "out").read_bytes() == b"input"
    assert (tmp_path / "err").read_bytes() == b"err\n"


async def test_streams_can_be_descriptors(loop):
    reader, writer = os.pipe()
    process = await asyncio.create_subprocess_exec("echo", "text", stdout=writer, stderr=writer)
    os.close(writer)
    assert await process.wait() == 0
    with open(reader, "rb") as file:
        assert file.read() == b"text\n"


async def test_streams_can_be_sockets(loop):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        process = await asyncio.create_subprocess_exec("cat", stdin=theirs, stdout=theirs)
        theirs.close()
        await loop.sock_sendall(ours, b"there and back")
        ours.shutdown(socket.SHUT_WR)
        received = b""
        while part := await loop.sock_recv(ours, 100):
            received += part
        assert received == b"there and back"
        assert await process.wait() == 0


async def test_one_process_reads_what_another_writes(loop):
    data = os.urandom(1 << 20)
    reader, writer = os.pipe()
    first = await asyncio.create_subprocess_exec("cat", stdin=sub.PIPE, stdout=writer)
    os.close(writer)
    second = await asyncio.create_subprocess_exec("cat", stdin=reader, stdout=sub.PIPE)
    os.close(reader)
    (_, _), (output, _) = await asyncio.gather(first.communicate(data), second.communicate())
    assert output == data
    assert (first.returncode, second.returncode) == (0, 0)


async def test_streams_can_be_thrown_away(loop):
    process = await asyncio.create_subprocess_shell(
        "cat; echo out; echo err >&2", stdin=sub.DEVNULL, stdout=sub.DEVNULL, stderr=sub.PIPE
    )
    assert await process.communicate() == (None, b"err\n")


async def test_stderr_can_follow_stdout_to_a_file(loop, tmp_path):
    with open(tmp_path / "both", "wb") as both:
        process = await asyncio.create_subprocess_shell(
            "echo out; echo err >&2", stdout=both, stderr=sub.STDOUT
        )
        assert await process.wait() == 0
    assert (tmp_path / "both").read_bytes() == b"out\nerr\n"


async def test_only_stderr_can_be_a_pipe(loop):
    process = await asyncio.create_subprocess_shell("echo err >&2", stderr=sub.PIPE)
    assert process.stdout is None
    assert await process.communicate() == (None, b"err\n")


async def test_stdin_cannot_be_stdout(loop):
    with pytest.raises(OSError, match="Bad file descriptor"):
        await asyncio.create_subprocess_exec("cat", stdin=sub.STDOUT)


async def test_the_limit_is_that_of_the_readers(loop):
    process = await asyncio.create_subprocess_exec("echo", "x" * 100, stdout=sub.PIPE, limit=10)
    with pytest.raises(ValueError, match="limit"):
        await process.stdout.readline()
    await process.stdout.read()
    assert await process.wait() == 0


async def test_a_long_line_fits_a_high_limit(loop):
    process = await asyncio.create_subprocess_shell(
        "head -c 1000000 /dev/zero | tr '\\0' x; echo", stdout=sub.PIPE, limit=1 << 20
    )
    assert await process.stdout.readline() == b"x" * 1_000_000 + b"\n"
    assert await process.wait() == 0


async def test_the_protocol_is_given_the_limit_and_the_loop(loop):
    transport, protocol = await loop.subprocess_exec(
        lambda: sub.SubprocessStreamProtocol(limit=64, loop=loop), "echo", "text", stdin=None, stderr=None
    )
    process = sub.Process(transport, protocol, loop)
    assert await process.communicate() == (b"text\n", None)
    assert transport.get_extra_info("subprocess").pid == process.pid
