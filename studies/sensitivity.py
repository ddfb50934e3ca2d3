"""The study `sensitivity`: what a little more of each input is worth to the best plan, at one context and from short contexts to long ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import kvopt
from kvopt.errors import BadInput
from kvopt.inputs.quantities import parse_lengths, parse_tokens
from kvopt.plots import write_figure
from kvopt.results import Result
from kvopt.wording import number, percent
from studies.result import StudyResult
from studies.sensitivity_plot import figure

QUESTION = "Which input is worth most to the best deployable plan, and how does that change with the context?"
CONTEXT = "64k"
CONTEXTS = ("4k", "16k", "32k", "64k", "128k", "256k")
DEFAULT: dict[str, Any] = {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1}
LITTLE = 0.005  # percent of the sessions per percent of an input, below which it is called worth nothing
SIDES = {"left": "less", "right": "more"}

Row = dict[str, Any]


def run(
    out: Path | None = None,
    progress: Callable[[str, float], None] | None = None,
    context: str | int = CONTEXT,
    contexts: str | int | Sequence[str | int] = CONTEXTS,
    **fields: Any,
) -> StudyResult:
    """One row per context and input, worth most first: percent of the sessions per GPU-hour for one percent less and more of it, and what one unit buys.

    Numbers are those of `kvopt sensitivity`. Where derivative and a step of 10 % disagree, `less` or `more` is empty and both ends are given. `context`: what
    the tornado is drawn of; `contexts`: a list, or text as `4k,128k`. Llama-3.1-8B on one H100 unless fields of `Scenario` say otherwise. `out`: folder for
    the picture. Raises `BadInput`.
    """
    if fields.get("per", "model") != "model":
        raise BadInput("per", fields["per"], "this study moves plans that are uniform over the model")
    at = parse_tokens(context, "context")
    lengths = sorted({at, *parse_lengths(contexts, "contexts")})
    report = progress or (lambda phase, share: None)
    found: dict[int, Result] = {}
    for place, length in enumerate(lengths):
        report(f"{length:,} tokens", place / len(lengths))
        found[length] = kvopt.sensitivity(**{**DEFAULT, **fields, "context": length})
    rows = [row for length, result in found.items() for row in table(length, result)]
    if out is not None and found[at].feasible:
        write_figure(figure(found[at], rows, at), out, "sensitivity")
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    shown = tuple(place for place, row in enumerate(rows) if row["context"] == at)
    ends = ("less, from", "less, to", "more, from", "more, to")
    return StudyResult(
        QUESTION, columns, tuple(rows), _notes(found, rows, at), ok=any(one.feasible for one in found.values()), hidden=ends, shown=shown
    )


def table(context: int, result: Result) -> list[Row]:
    """The inputs of one result, worth most first; none where nothing is feasible."""
    entries = result.data["elasticities"]
    return sorted((_row(context, name, entry) for name, entry in entries.items()), key=lambda row: -worth(row))


def worth(row: Mapping[str, Any]) -> float:
    """The larger size of an input's two elasticities, of an interval its further end; 0 where both are unknown."""
    ends = (row[name] for word in SIDES.values() for name in (word, f"{word}, from", f"{word}, to"))
    return max((abs(end) for end in ends if end is not None), default=0.0)


def _row(context: int, name: str, entry: Mapping[str, Any]) -> Row:
    row: Row = {"context": context, "input": name, "less": _plain(entry["left"]), "more": _plain(entry["right"])}
    for place, word in SIDES.items():
        low, high = entry.get(f"{place}_interval") or (None, None)
        row |= {f"{word}, from": low, f"{word}, to": high}
    bought = entry.get("per_unit") or {}
    row["unit"] = bought.get("unit", "")
    for metric, column in (("sessions_per_gpu_hour", "sessions/GPU-hour per unit"), ("users_per_gpu", "users/GPU per unit")):
        ends = bought.get(f"{metric}_interval")
        row[column] = bought.get(metric) if ends is None else None
        row[f"{column}, ends"] = "" if ends is None else f"{number(ends[0])} to {number(ends[1])}"
    return row


def _plain(value: float | None) -> float | None:
    """Nothing is 0, whichever its sign."""
    return value if value is None else value + 0.0


def _notes(found: Mapping[int, Result], rows: Sequence[Row], at: int) -> tuple[str, ...]:
    first = next(iter(found.values())).data["scenario"]
    said = [
        f"{first['model']} on {first['gpus']} x {first['accelerator']}, {first['engine']}, accuracy floor {percent(first['accuracy_floor'])}",
        "percent of the sessions per GPU-hour for one percent of an input, the load and what stays in HBM solved again; for the accuracy floor, plans are "
        "searched again one point away",
        f"shown: {at:,} tokens; table.csv has all contexts",
    ]
    for length, result in found.items():
        said.append(f"{length:,} tokens: {_told(result, [row for row in rows if row['context'] == length])}")
    return (*said, *_trend(rows), _floor(found))


def _told(result: Result, mine: Sequence[Row]) -> str:
    """What is worth most, what binds, and the price of one unit."""
    if not result.feasible or not mine:
        return f"nobody is served: {result.data['infeasible']['reason']}"
    best, *others = [row for row in mine if worth(row) > LITTLE] or [mine[0]]
    second = f", then {others[0]['input']} ({number(worth(others[0]))})" if others else ""
    price = best["sessions/GPU-hour per unit"]
    bought = f"{number(price)}" if price is not None else best["sessions/GPU-hour per unit, ends"]
    unit = f"; {bought} sessions per GPU-hour for one more {best['unit']}" if best["unit"] and bought else ""
    return f"worth most is {best['input']} ({number(worth(best))} %){second}{unit}; binding: {result.data['bottleneck']}"


def _trend(rows: Sequence[Row]) -> list[str]:
    """The inputs that gain and lose most from the shortest context served to the longest."""
    lengths = sorted({row["context"] for row in rows})
    if len(lengths) < 2:
        return []
    short, long = ({row["input"]: worth(row) for row in rows if row["context"] == one} for one in (lengths[0], lengths[-1]))
    change = {name: long[name] - short[name] for name in short if name in long}
    up, down = max(change, key=change.__getitem__), min(change, key=change.__getitem__)
    told = [f"{name} from {number(short[name])} to {number(long[name])} %" for name in (up, down) if abs(change[name]) > LITTLE]
    return [f"from {lengths[0]:,} to {lengths[-1]:,} tokens the worth of {' and of '.join(told)}"] if told else []


def _floor(found: Mapping[int, Result]) -> str:
    """What a point of the accuracy floor buys."""
    gains = {}
    for length, result in found.items():
        bought = ((result.data["elasticities"] or {}).get("accuracy_floor") or {}).get("per_unit") or {}
        if bought.get("sessions_per_gpu_hour") is not None:
            gains[length] = 100 * bought["sessions_per_gpu_hour"] / result.data["metrics"]["sessions_per_gpu_hour"]
    if not gains:
        return "one point of the accuracy floor: unknown"
    if max(gains.values()) <= LITTLE:
        kept = min(result.data["metrics"]["accuracy_lower"] for result in found.values() if result.feasible)
        return f"one point of the accuracy floor given up buys nothing at any context: the best plans keep {percent(kept)} or more (lower end)"
    most = max(gains, key=gains.__getitem__)
    return f"one point of the accuracy floor given up buys at most {number(gains[most])} % more sessions (at {most:,} tokens)"
