"""What is asked of a simulation, as a person writes it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from kvopt.errors import BadInput, unknown
from kvopt.inputs.quantities import parse_duration, parse_tokens

Thinking = Literal["exponential", "constant"]
REQUESTS = 1000  # measured where neither a number nor a duration is asked for


@dataclass(frozen=True)
class Traffic:
    """Closed-loop users (`users`, or as many as the closed form says the plan serves), sessions at a `rate`, or a `trace`; and how long to look."""

    users: int | None = None
    rate: float | None = None
    trace: Path | None = None
    requests: int | None = None
    duration_s: float | None = None
    warmup_s: float | None = None
    thinking: Thinking = "exponential"
    kv_tokens: int | None = None

    @property
    def kind(self) -> Literal["users", "rate", "trace"]:
        """Where the requests come from."""
        return "trace" if self.trace is not None else "rate" if self.rate is not None else "users"


OPTIONS = {
    "users": "closed-loop users of one group (default: what the closed form says the plan serves)",
    "rate": "sessions that begin on one group, per second, at random (Poisson), in place of users",
    "trace": "file of requests to replay at their timestamps, in place of users (Azure CSV, Mooncake JSONL, one's own CSV)",
    "requests": f"requests to measure (default {REQUESTS:,}; all of a trace)",
    "duration": "time to measure, in place of a number of requests",
    "warmup": "time before measuring begins (default: twice what a session lasts; none of a trace)",
    "thinking": "distribution of the think time: exponential or constant (default exponential)",
    "kv_tokens": "tokens that the cache holds, as the engine logs at start-up (default: computed)",
}
"""What `simulate` takes besides a scenario, by name."""


def traffic(**asked: Any) -> Traffic:
    """The traffic of options as people write them; absent ones are `None`. Raises `BadInput`."""
    for name in asked:
        if name not in OPTIONS:
            raise unknown("option", name, OPTIONS)
    given = {name: value for name, value in asked.items() if value is not None}
    sources = [name for name in ("users", "rate", "trace") if name in given]
    if len(sources) > 1:
        raise BadInput(sources[1], given[sources[1]], f"not together with {sources[0]}")
    if "requests" in given and "duration" in given:
        raise BadInput("duration", given["duration"], "not together with requests")
    if "trace" in given:
        for name in ("duration", "warmup", "thinking"):
            if name in given:
                raise BadInput(name, given[name], "a trace has its own times")
    thinking = given.get("thinking", "exponential")
    if thinking not in get_args(Thinking):
        raise unknown("thinking", str(thinking), get_args(Thinking))
    return Traffic(
        users=_whole("users", given.get("users")),
        rate=_positive("rate", given.get("rate")),
        trace=Path(given["trace"]) if "trace" in given else None,
        requests=_whole("requests", given.get("requests")),
        duration_s=parse_duration(given["duration"], "duration") if "duration" in given else None,
        warmup_s=parse_duration(given["warmup"], "warmup", zero=True) if "warmup" in given else None,
        thinking=thinking,
        kv_tokens=parse_tokens(given["kv_tokens"], "kv_tokens") if "kv_tokens" in given else None,
    )


def _positive(name: str, value: object) -> float | None:
    if value is None:
        return None
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise BadInput(name, value, "must be a number above zero")
    return number


def _whole(name: str, value: object) -> int | None:
    number = _positive(name, value) if value is not None else None
    if number is not None and (number != int(number)):
        raise BadInput(name, value, "must be a whole number, 1 or more")
    return None if number is None else int(number)
