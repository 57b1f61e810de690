"""The machine a run happens on: what it is, and which cores are used.

Results mean little without it, so a description goes into every file.
"""

import os
import platform
import resource
from functools import cache
from pathlib import Path
from typing import Any

FILES_WANTED = 65_536


@cache
def cores() -> tuple[int | None, int | None]:
    """Choose a core for the measured process and another for the load generator, if there are two: once."""
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (None, None)


def leave_measured_core() -> None:
    """Move this process, which loads servers, to the other core, if there is one."""
    _, core = cores()
    if core is not None:
        os.sched_setaffinity(0, {core})


def processor() -> str:
    """Name the processor as the kernel does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def describe() -> dict[str, Any]:
    """Describe hardware, kernel and interpreter."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "measured_core": cores()[0],
        "generator_core": cores()[1],
        "load_average_before": list(os.getloadavg()),
    }


def allow_many_files() -> None:
    """Raise the limit of open files, which children inherit: thousands of connections need it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, FILES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
