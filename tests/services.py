"""Real servers for the libraries under test: private, on loopback and a Unix socket, gone with the tests.

# Invariants
- A server keeps its files in a directory of its own, removed with it, and ends even when the tests are
  killed.
- A service that cannot be had here raises `Unavailable` with the reason; the fixtures turn it into a skip.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 30.0
PRIVATE_PORTS_TRIED = 5


class Unavailable(Exception):
    """The service cannot be had on this machine; the message says why."""


@dataclass(frozen=True)
class Service:
    """Where a running server listens."""

    host: str
    port: int
    unix_socket: str
    # What a client must trust to speak TLS with it; None where it does not speak TLS.
    certificate: Path | None
    # PostgreSQL speaks it on the same port.
    tls_port: int


@contextlib.contextmanager
def redis_server(*settings: str) -> Iterator[Service]:
    """Run a private redis-server, with options of its own where the caller needs some."""
    executable = shutil.which("redis-server")
    if executable is None:
        raise Unavailable("there is no redis-server: tools/prepare_redis.sh installs it")
    with temporary_directory("redis") as directory:
        unix_socket = str(directory / "redis.sock")
        certificate = _certificate(directory, None) if _redis_speaks_tls(executable) else None
        tls_port = _free_port() if certificate else 0
        options = {"--bind": "127.0.0.1", "--unixsocket": unix_socket, "--dir": str(directory)}
        options |= {"--save": "", "--appendonly": "no"}
        if certificate:
            key = str(directory / "server.key")
            options |= {
                "--tls-port": str(tls_port),
                "--tls-cert-file": str(certificate),
                "--tls-key-file": key,
            }
            options |= {"--tls-ca-cert-file": str(certificate), "--tls-auth-clients": "no"}

        def command(port: int) -> list[str]:
            words = [word for option in options.items() for word in option]
            return [executable, "--port", str(port), *words, *settings]

        with running(command, directory, end_signal=signal.SIGTERM, is_ready=_redis_answers) as port:
            yield Service("127.0.0.1", port, unix_socket, certificate, tls_port)


def _redis_speaks_tls(executable: str) -> bool:
    """Tell whether the server was built with TLS: then it fails for want of a port, else at the option."""
    asked = [executable, "--port", "0", "--save", "", "--tls-auth-clients", "no"]
    return "not listen anywhere" in subprocess.run(asked, capture_output=True, text=True, cwd="/").stdout


def _redis_answers(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")


@contextlib.contextmanager
def postgresql_server() -> Iterator[Service]:
    """Run a private PostgreSQL; the superuser `tester` needs no password; with TLS where openssl is."""
    programs = postgresql_programs()
    account = _unprivileged_account()
    with temporary_directory("postgresql", account) as directory:
        data = directory / "data"
        initialise = [programs / "initdb", "-D", data, "-U", "tester", "--auth=trust", "--encoding=UTF8"]
        _run([*initialise, "--locale=C", "--no-sync", "--no-instructions"], account)
        certificate = _certificate(directory, account)
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(directory),
            # Nothing here outlives the tests, so nothing needs to reach the disk.
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": "50",
            "shared_buffers": "16MB",
            "ssl": "on" if certificate else "off",
            "ssl_cert_file": str(directory / "server.crt"),
            "ssl_key_file": str(directory / "server.key"),
        }

        def command(port: int) -> list[str]:
            options = [f"--{name}={value}" for name, value in settings.items()]
            return [str(programs / "postgres"), "-D", str(data), "-p", str(port), *options]

        def is_ready(port: int) -> bool:
            asked = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
            return subprocess.run(asked).returncode == 0

        # SIGINT is PostgreSQL's "fast shutdown": it does not wait for clients to leave.
        with running(
            command, directory, end_signal=signal.SIGINT, is_ready=is_ready, account=account
        ) as port:
            yield Service("127.0.0.1", port, str(directory), certificate, port)


def postgresql_programs() -> Path:
    """Return the folder of PostgreSQL's newest programs; Debian keeps the server's off PATH."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parent.parent.name)
    )
    if found:
        return found[-1].parent
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    raise Unavailable("there is no PostgreSQL server: tools/prepare_postgresql.sh installs it")


def _unprivileged_account() -> str | None:
    """Return whom PostgreSQL runs as: it refuses root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise Unavailable("PostgreSQL does not run as root, and there is no account `postgres` or `nobody`")


def _certificate(directory: Path, account: str | None) -> Path | None:
    """Make a self-signed certificate for the loopback, and its key; None without the program to make it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        return None
    request = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", directory / "server.key", "-out", directory / "server.crt"]
    _run([*request, *names, *files], account)
    (directory / "server.key").chmod(0o600)
    return directory / "server.crt"


@contextlib.contextmanager
def temporary_directory(name: str, account: str | None = None) -> Iterator[Path]:
    """Make a directory that belongs to the account, where it can get at it: pytest's own are closed to it."""
    with tempfile.TemporaryDirectory(prefix=f"ecosystem-{name}-", ignore_cleanup_errors=True) as path:
        if account is not None:
            owner = pwd.getpwnam(account)
            os.chown(path, owner.pw_uid, owner.pw_gid)
        yield Path(path)


@contextlib.contextmanager
def running(
    command: Callable[[int], list[str]],
    directory: Path,
    *,
    end_signal: signal.Signals,
    is_ready: Callable[[int], bool],
    account: str | None = None,
) -> Iterator[int]:
    """Run the server that `command(port)` starts, on a free port, for as long as the block takes."""
    log = directory / "server.log"
    for _ in range(PRIVATE_PORTS_TRIED):
        port = _free_port()
        with log.open("wb") as output:
            process = subprocess.Popen(
                command(port),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=directory,
                user=account,
                group=None if account is None else pwd.getpwnam(account).pw_gid,
                extra_groups=None if account is None else [],
                start_new_session=True,
                preexec_fn=lambda: _end_with_parent(end_signal),
            )
        try:
            if _becomes_ready(process, port, is_ready):
                yield port
                return
        finally:
            _end(process, end_signal)
    raise OSError(f"the server does not start: {' '.join(command(port))}\n{_tail(log)}")


def _becomes_ready(process: subprocess.Popen[bytes], port: int, is_ready: Callable[[int], bool]) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            # Another program may have taken the port a moment before ours tried to.
            if is_ready(port) and process.poll() is None:
                return True
        time.sleep(0.05)
    return False


def _end(process: subprocess.Popen[bytes], end_signal: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(end_signal)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_with_parent(end_signal: signal.Signals) -> None:
    """Ask the kernel to end this process when the tests are killed: prctl(2), PR_SET_PDEATHSIG is 1."""
    ctypes.CDLL(None).prctl(1, end_signal)


def _run(command: list[str | Path], account: str | None) -> None:
    done = subprocess.run(
        command, cwd="/", user=account, extra_groups=None if account is None else [], capture_output=True
    )
    if done.returncode:
        raise OSError(f"{command[0]} failed: {done.stderr.decode(errors='replace')}")


def _tail(log: Path) -> str:
    return re.sub(r"\n+", "\n", log.read_text(errors="replace"))[-2000:]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
