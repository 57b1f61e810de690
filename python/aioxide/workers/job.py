"""What a process of a worker is told by its supervisor, on its way through the environment.

The environment, not the command line, because the address may have a password in it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any

VARIABLE = "AIOXIDE_WORKER_JOB"

# Exit codes of a process: asked to stop and stopped, and what no restart mends.
STOPPED = 0
MISTAKE = 2


@dataclass(frozen=True, slots=True)
class Job:
    """One process's work."""

    handler: str
    is_factory: bool
    url: str
    # Arguments of StreamWorker by name; the consumer is one of them.
    options: dict[str, Any]
    driver: str | None
    native_tasks: bool
    log_level: str
    # A pipe that has an end when the supervisor has gone.
    lifeline: int

    def environment(self) -> dict[str, str]:
        """Return the environment for a process with this job."""
        return {**os.environ, VARIABLE: json.dumps(asdict(self))}


def take_job() -> Job:
    """Read this process's job, and hide it from the processes that the handler starts."""
    return Job(**json.loads(os.environ.pop(VARIABLE)))
