"""A private Redis for the leaderboard: the real server where there is one, else an embedded stand-in.

The server listens on loopback, keeps nothing on disk and ends with the block that started it, or with the
whole program if that is killed. The stand-in is fakeredis' TCP server, in a process of its own: good enough
for correct results, but its figures mean nothing.
"""

from __future__ import annotations

import ctypes
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

START_SECONDS = 10.0
START_ATTEMPTS = 5


@dataclass(frozen=True)
class RedisServer:
    """Where a running server is, and what it is."""

    url: str
    kind: str
    is_stand_in: bool


@contextmanager
def private_server(allow_real: bool = True) -> Iterator[RedisServer]:
    """Start a server, wait until it answers, and end it after the block."""
    executable = shutil.which("redis-server") if allow_real else None
    with tempfile.TemporaryDirectory(prefix="leaderboard-redis-") as directory:
        process, port = _start(executable, directory)
        try:
            kind = (
                executable
                or "fakeredis, an embedded stand-in, because there is no redis-server on this machine"
            )
            yield RedisServer(f"redis://127.0.0.1:{port}/0", kind, is_stand_in=executable is None)
        finally:
            _end(process)


def _start(executable: str | None, directory: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start on a free port; try another one when somebody else took it first."""
    problem = ""
    for _ in range(START_ATTEMPTS):
        port = _free_port()
        process = subprocess.Popen(
            _command(executable, port, directory),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            # Ctrl-C in a terminal is for the program; the server ends when the program is done with it.
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        try:
            if _answers(process, port):
                return process, port
        except BaseException:
            _end(process)
            raise
        problem = _end(process)
    raise OSError(f"no Redis server could be started: {problem or 'it did not answer'}")


def _command(executable: str | None, port: int, directory: str) -> list[str]:
    if executable is None:
        return [sys.executable, __file__, str(port)]
    listen = ["--port", str(port), "--bind", "127.0.0.1"]
    return [executable, *listen, "--save", "", "--appendonly", "no", "--dir", directory]


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the server answers PING, or has ended, or the time is up."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(b"*1\r\n$4\r\nPING\r\n")
                if connection.recv(16).startswith(b"+PONG"):
                    # Another server may have taken the port a moment before ours tried to.
                    return process.poll() is None
        except OSError:
            time.sleep(0.02)
    return False


def _end(process: subprocess.Popen[bytes]) -> str:
    """End the process and return the last line of what it complained about."""
    process.terminate()
    try:
        _, complaints = process.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        _, complaints = process.communicate()
    lines = complaints.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _end_with_parent() -> None:
    """Ask the kernel to end this process when the program is killed: prctl(2), PR_SET_PDEATHSIG is 1."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def serve_stand_in(port: int) -> None:
    """Serve fakeredis on a port until the process that started this one is gone."""
    from fakeredis import TcpFakeServer

    server = TcpFakeServer(("127.0.0.1", port), server_type="redis")
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.buffer.read()


if __name__ == "__main__":
    serve_stand_in(int(sys.argv[1]))
