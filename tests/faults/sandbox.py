"""A sandbox for child processes: system calls that fail with an errno of one's choice, by seccomp(2).

A filter cannot be taken off again, so it belongs into a process that ends with the test.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import subprocess
import sys
from pathlib import Path

# Numbers of system calls by machine (`platform.machine()`); those of newer calls are the same everywhere.
_EVERYWHERE = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "pidfd_open": 434}
_NUMBERS = {
    "x86_64": {**_EVERYWHERE, "accept4": 288, "eventfd2": 290, "epoll_create1": 291, "getsockopt": 55},
    "aarch64": {**_EVERYWHERE, "accept4": 242, "eventfd2": 19, "epoll_create1": 20, "getsockopt": 209},
}

# prctl(2), seccomp(2) and linux/bpf_common.h.
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_SECCOMP_MODE_FILTER = 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def why_unavailable() -> str | None:
    """Return why there are no sandboxes here, or None when there are."""
    if platform.machine() not in _NUMBERS:
        return f"the numbers of {platform.machine()}'s system calls are not known here"
    done = run("sandbox.deny(accept4=1)")
    return None if done.returncode == 0 else f"this machine allows no seccomp filter: {done.stderr}"


def deny(**calls: int) -> None:
    """From now on these system calls of this thread, and of threads and processes it starts, fail."""
    numbers = _NUMBERS[platform.machine()]
    # The first word that a filter can load is the number of the call.
    instructions = [struct.pack("HBBI", _LOAD_WORD, 0, 0, 0)]
    for name, number in calls.items():
        instructions.append(struct.pack("HBBI", _JUMP_IF_EQUAL, 0, 1, numbers[name]))
        instructions.append(struct.pack("HBBI", _RETURN, 0, 0, _ERRNO | number))
    instructions.append(struct.pack("HBBI", _RETURN, 0, 0, _ALLOW))
    memory = ctypes.create_string_buffer(b"".join(instructions))
    program = _Program(len(instructions), ctypes.cast(memory, ctypes.c_void_p))
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or library.prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program that may use this module in a process of its own."""
    prelude = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nimport sandbox\n"
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", prelude + program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
