"""The tables of a report: plans side by side, constraints, elasticities, fronts, and what each engine would give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.table import Table

from kvopt import wording
from kvopt.wording import CONSTRAINTS, QUANTITIES

NUMBERS = 14  # columns that a number may take: the heads above them wrap
FRONT_ROWS = 12
BINDS = 0.02  # relative slack below which a constraint is said to bind
PAPER = ("concurrency", "prefill_s", "decode_s_per_token", "context_switch_s", "kv_bytes_per_token", "kv_bytes_per_session")
SERVED = ("sessions_per_gpu_hour", "users_per_gpu", "requests_in_flight", "ttft_s", "tpot_s")
SPEEDS = {"model": "with this model", "group": "with other models", "none": "elsewhere"}
JUDGED = ("accuracy_retained", "accuracy_lower", "cost_per_session_usd")


def grid(rows: Iterable[tuple[str, str]]) -> Table:
    """Lines with a name before each, wrapped beside it."""
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="bold", no_wrap=True)
    lines.add_column(overflow="fold")
    for name, line in rows:
        lines.add_row(name, line)
    return lines


def _table(title: str, columns: Sequence[str], words: Sequence[int] = (0,)) -> Table:
    """An empty table: the columns numbered in `words` are set left, the others are numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="italic", title_justify="left", title_style="bold")
    table.title = f"\n{title}" if title else None
    for index, name in enumerate(columns):
        left = index in words
        table.add_column(name, justify="left" if left else "right", overflow="fold", max_width=None if left else NUMBERS)
    return table


def metrics(answer: dict[str, Any], scenario: dict[str, Any], alone: bool) -> Table:
    """Answer, research optimum and uncompressed baseline side by side, or one plan alone."""
    research = answer.get("research") or {}
    shown: dict[str, Any] = {"plan": answer["metrics"]}
    if not alone:
        shown = {"answer": answer["metrics"], "research": research.get("metrics"), "uncompressed": answer["baseline"]}
    columns = {name: metrics for name, metrics in shown.items() if metrics}
    evidence = {"plan": answer.get("evidence"), "answer": answer.get("evidence"), "research": research.get("evidence")}
    table = _table("", ["", *columns])
    named = labels(scenario)
    table.add_row(f"One prompt of {scenario['context']:,.0f} tokens", style="italic")
    for name in PAPER:
        table.add_row(f"  {named[name]}", *(QUANTITIES[name](metrics[name]) for metrics in columns.values()))
    table.add_row("Sessions as they come", style="italic")
    for name in (*SERVED, *JUDGED):
        table.add_row(f"  {named[name]}", *(QUANTITIES[name](metrics[name]) for metrics in columns.values()))
        if name == "accuracy_lower" and any(evidence.values()):
            table.add_row("  Evidence for the accuracy", *(evidence.get(column) or "-" for column in columns))
    return table


def labels(scenario: dict[str, Any]) -> dict[str, str]:
    """Names of the metrics, with the targets beside what they bound."""
    found = {name: quantity.label for name, quantity in QUANTITIES.items()}
    for name in ("ttft_s", "tpot_s"):
        written = str(scenario.get(name.removesuffix("_s")) or "")
        percentile = f"{written.partition(':')[0]} " if ":" in written else ""
        found[name] += f" (target {percentile}{QUANTITIES[name](scenario[name])})"
    found["accuracy_retained"] += f" (floor {100 * scenario['accuracy_floor']:g} %, on {scenario['task']})"
    found["accuracy_lower"] += f" at {100 * scenario['confidence']:g} % confidence"
    return found


def constraints(rows: Sequence[dict[str, Any]], scenario: dict[str, Any]) -> Table:
    """Value, limit and slack of every constraint, at the asked confidence."""
    table = _table(f"Constraints, at {100 * scenario['confidence']:g} % confidence", ["", "value", "limit", "slack", ""], words=(0, 4))
    for row in rows:
        say = CONSTRAINTS[row["name"]]
        table.add_row(say.label, say(row["value"]), say(row["limit"]), say(row["slack"]), state(row), style=None if row["satisfied"] else "bold")
    return table


def state(row: dict[str, Any]) -> str:
    """Whether a constraint fails, binds, or is not in use; empty where it holds with room."""
    if not row["satisfied"]:
        return "fails"
    if row["slack"] is None or row["limit"] is None:
        return "not in use" if row["value"] is None else ""
    return "binds" if row["slack"] <= BINDS * abs(row["limit"]) and row["value"] else ""


def elasticities(found: dict[str, dict[str, Any]]) -> Table:
    """By input: percent of sessions per GPU-hour for one percent less or more of it, and what one more unit of it buys."""
    table = _table("Elasticities and prices", ["", "less", "more", "one more", "users per GPU", "sessions per GPU-hour"], words=(0, 3))
    for name, sides in found.items():
        unit = sides.get("per_unit") or {}
        bought = [between(unit, entry, signed) if unit else "" for entry in ("users_per_gpu", "sessions_per_gpu_hour")]
        table.add_row(name.replace("_", " "), *(between(sides, side, slope) for side in ("left", "right")), unit.get("unit", ""), *bought)
    return table


def between(entry: dict[str, Any], name: str, say: Callable[[float], str]) -> str:
    """A number, or the two ends between which it lies where there is no one number."""
    ends = entry.get(f"{name}_interval")
    return f"{say(ends[0])} to {say(ends[1])}" if ends else wording.said(say, entry.get(name))


def slope(value: float) -> str:
    """An elasticity: percent for one percent."""
    return f"{round(value, 2) + 0.0:.2f}"


def signed(value: float) -> str:
    """A difference with its sign."""
    return f"{'+' if value > 5e-4 else ''}{wording.number(value)}" if abs(value) > 5e-4 else "0"


def front(data: dict[str, Any], scenario: dict[str, Any]) -> Table:
    """Some points of the fronts, spread, with what they are drawn over."""
    rows = [row for label in ("deployable", "research") for row in data["points"] if row["front"] == label]
    several = {label: [row for row in rows if row["front"] == label] for label in ("deployable", "research")}
    today = spread(several["deployable"], max(FRONT_ROWS // 3, FRONT_ROWS - len(several["research"])))
    shown = today + spread(several["research"], FRONT_ROWS - len(today))
    goals = list(dict.fromkeys([*data["objectives"], *(["accuracy_lower"] if "accuracy_retained" in data["objectives"] else [])]))
    title = f"{len(shown)} of the {len(rows)} points of the fronts" + (" (* below the accuracy floor)" if "accuracy_lower" in goals else "")
    table = _table(title, ["front", "plan", *(QUANTITIES[name].label for name in goals)], words=(0, 1))
    for row in shown:
        metrics, plan = row["metrics"], row["plan"]
        below = (metrics["accuracy_lower"] or 0) < scenario["accuracy_floor"]
        cells = [QUANTITIES[name](metrics[name]) + (("*" if below else " ") if name == "accuracy_lower" else "") for name in goals]
        table.add_row("today" if row["front"] == "deployable" else "research", wording.methods(plan), *cells)
    return table


def spread(rows: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of the rows, evenly spaced, both ends among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(index * (len(rows) - 1) / (most - 1))] for index in range(most)] if most > 1 else list(rows[:most])


def engines(rows: Sequence[dict[str, Any]]) -> Table:
    """What each engine would give, the best first; why not, where it gives nothing."""
    ahead = any(row.get("research_methods") for row in rows)
    table = _table(
        "By engine",
        ["", "sessions per GPU-hour", "accuracy kept", "with", "its speed was measured", *(["research"] if ahead else [])],
        words=(0, 3, 4),
    )
    for row in rows:
        said = row["why"] or wording.methods(row)
        numbers = ["-" if row["why"] else QUANTITIES[name](row[name]) for name in ("sessions_per_gpu_hour", "accuracy_retained")]
        best = row.get("research_sessions_per_gpu_hour")
        speed = SPEEDS.get(row["profile"], "-")
        table.add_row(row["engine"], *numbers, said, speed, *(["-" if best is None else QUANTITIES["sessions_per_gpu_hour"](best)] if ahead else []))
    return table
