"""What people write for amounts, read into SI units: tokens, durations, latency targets, bytes.

`k` and `m` are decimal, `K` and `M` binary, as in `50k` = 50,000 and `50K` = 51,200 tokens. What cannot be meant (zero, negative, NaN, infinite,
another unit) is a `BadInput` that says what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from kvopt.errors import BadInput

_NUMBER = r"(\d+(?:\.\d*)?(?:[eE]\+?\d{1,2})?|\.\d+)"
_TOKENS = {"": 1, "k": 1000, "K": 1024, "m": 1000**2, "M": 1024**2}
_SECONDS = {"": "1", "us": "1e-6", "ms": "1e-3", "s": "1", "min": "60", "h": "3600", "d": "86400"}
_BYTES = {
    "B": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)},
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)},
}
_BYTES_LOWER = {name.lower(): factor for name, factor in _BYTES.items()}
_MOST_TOKENS = 10**12  # far beyond any context, and far below where float64 loses whole tokens


@dataclass(frozen=True)
class LatencyTarget:
    """A bound on a latency: `seconds` [s] that the mean (`percentile` None) or the given percentile (95 for p95) must not exceed."""

    seconds: float
    percentile: float | None = None


def _split(text: object) -> tuple[Decimal, str] | None:
    """Number and unit, or None where there is no plain non-negative number in front."""
    if isinstance(text, bool):
        return None
    match = re.fullmatch(rf"\s*{_NUMBER}\s*([A-Za-z]*)\s*", str(text), flags=re.ASCII)
    return (Decimal(match[1]), match[2]) if match else None


def parse_lengths(given: str | int | Sequence[str | int], field: str) -> list[int]:
    """Several numbers of tokens, rising, each once: a list, text as `4k,128k`, or one number. Raises `BadInput`."""
    listed = given.split(",") if isinstance(given, str) else [given] if isinstance(given, int) else given
    return sorted({parse_tokens(one, field) for one in listed})


def parse_tokens(text: str | float, field: str = "tokens", least: int = 1) -> int:
    """A whole number of tokens, at least `least`: `131072`, `1.5k` = 1,500, `50k` = 50,000, `50K` = 51,200, `1m` = 10^6, `1M` = 1,048,576."""
    allowed = f"must be a whole number of tokens from {least:,} to 10^12, as 131072, 50k (= 50,000), 50K (= 51,200), 1m (= 10^6) or 1M (= 2^20)"
    parts = _split(text)
    if parts is None or parts[1] not in _TOKENS:
        raise BadInput(field, text, allowed)
    tokens = parts[0] * _TOKENS[parts[1]]
    if tokens != tokens.to_integral_value() or not least <= tokens <= _MOST_TOKENS:
        raise BadInput(field, text, allowed)
    return int(tokens)


def parse_duration(text: str | float, field: str = "duration", zero: bool = False) -> float:
    """Seconds [s]: `10s`, `50ms`, `2min`, `1h`, a plain number is seconds; zero only where `zero` says so (think time)."""
    allowed = f"must be a time {'of zero or more' if zero else 'above zero'}, as 10s, 50ms, 2min, 1h or a number of seconds"
    parts = _split(text)
    if parts is None or parts[1] not in _SECONDS or (parts[0] == 0 and not zero):
        raise BadInput(field, text, allowed)
    return float(parts[0] * Decimal(_SECONDS[parts[1]]))


def parse_latency(text: str | float, field: str = "latency") -> LatencyTarget:
    """A latency target: a duration, with a percentile in front or without one: `p95:2s`, `p99.9:200ms`, `2s`."""
    head, colon, tail = str(text).strip().partition(":")
    if not colon:
        return LatencyTarget(parse_duration(text, field))
    match = re.fullmatch(r"[pP](\d{1,2}(?:\.\d+)?)", head, flags=re.ASCII)
    if match is None or float(match[1]) == 0:
        raise BadInput(field, text, "must be a time, or a percentile between p0 and p100 and a time, as 2s or p95:2s")
    try:
        return LatencyTarget(parse_duration(tail, field), float(match[1]))
    except BadInput as error:
        raise BadInput(field, text, error.allowed) from None  # show what was written, not its second half


def parse_bytes(text: str | float, field: str = "bytes", plain: str = "GB", zero: bool = False) -> float:
    """Bytes: `80GB` = 80 * 10^9, `80GiB` = 80 * 2^30, `1.5TB`; the unit of a plain number is `plain`. Zero only where `zero` says so."""
    allowed = f"must be an amount of memory {'of zero or more' if zero else 'above zero'}, as 80GB (10^9 bytes), 80GiB (2^30) or a number of {plain}"
    parts = _split(text)
    if parts is None or (parts[1] or plain).lower() not in _BYTES_LOWER or (parts[0] == 0 and not zero):
        raise BadInput(field, text, allowed)
    return float(parts[0] * _BYTES_LOWER[(parts[1] or plain).lower()])
