"""What a worker was asked for, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a worker that do not change while it runs; `StreamWorker` explains them."""

    concurrency: int
    batch: int | None
    timeout: float | None
    block: float
    claim_idle: float
    max_deliveries: int | None
    retry_delay: float
    dead_letter: str | None
    dead_letter_limit: int | None
    start: str
    delete: bool
    grace: float
    reconnect_delay: float = 0.1
    longest_reconnect_delay: float = 5.0
    # Whether fields become text, and how.
    decode: bool = True
    encoding: str = "utf-8"
    encoding_errors: str = "strict"

    def __post_init__(self) -> None:
        for name in ("concurrency", "batch", "max_deliveries", "dead_letter_limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is at least 1, not {value}")
        for name in ("timeout", "block", "claim_idle", "reconnect_delay"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is more than 0 seconds, not {value}")
        for name in ("retry_delay", "grace"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is not negative: {getattr(self, name)}")
        if self.batch is not None and self.max_deliveries == 1:
            raise ValueError("a failed batch is delivered again event by event: max_deliveries is at least 2")

    def decoded(self, fields: dict[Any, Any]) -> dict[Any, Any]:
        """Return fields as the handler wants them."""
        if not self.decode:
            return fields
        return {self._decoded(name): self._decoded(value) for name, value in fields.items()}

    def _decoded(self, value: Any) -> Any:
        return value.decode(self.encoding, self.encoding_errors) if isinstance(value, bytes) else value

    def dead_letter_of(self, stream: str) -> str:
        """Return the dead-letter stream of a stream."""
        assert self.dead_letter is not None
        if "{stream}" not in self.dead_letter:
            return self.dead_letter
        return self.dead_letter.replace("{stream}", stream)
