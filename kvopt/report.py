"""What a person reads of a result in a terminal: three lines with the answer, then tables, in human units."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from kvopt import wording
from kvopt.results import Result
from kvopt.wording import CONSTRAINTS, QUANTITIES, number

WIDTH = 100  # columns of `text`
NUMBERS = 14  # columns that a number may take: the heads above them wrap
FRONT_ROWS = 12
BINDS = 0.02  # relative slack below which a constraint is said to bind
LEVERS = "prefix reuse, sparse prefill, layer skipping or separate prefill accelerators"
LEDGER = {"usable": "for the engine", "weights": "weights", "reserve": "engine's reserve", "caches": "caches in use", "left": "left for caches"}
USERS = (
    "Users: sessions that one GPU carries when each just meets its targets, think time included. "
    "Requests in flight: answers in prefill or decoding at one moment, on all GPUs; users who think are not among them."
)
PAPER = ("concurrency", "prefill_s", "decode_s_per_token", "context_switch_s", "kv_bytes_per_token", "kv_bytes_per_session")
SERVED = ("sessions_per_gpu_hour", "users_per_gpu", "requests_in_flight", "ttft_s", "tpot_s")
JUDGED = ("accuracy_retained", "accuracy_lower", "cost_per_session_usd")


def text(result: Result) -> str:
    """The report as plain text of 100 columns without colour codes, the warnings below it."""
    out = io.StringIO()
    console = Console(file=out, width=WIDTH, color_system=None, force_terminal=False, legacy_windows=False)
    show(result, console)
    for warning in result.warnings:
        console.print(f"Warning: {warning}", markup=False, highlight=False)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def show(result: Result, console: Console) -> None:
    """Prints the report. Warnings are left to the caller, who may have printed them already."""
    if result.kind == "simulate":
        from kvopt.simulation.report import show as show_simulation

        return show_simulation(result, console)
    scenario = result.data["scenario"]
    answer = result.data.get("answer") or result.data
    _line(console, f"{result.kind}: {wording.question(scenario)}", "bold")
    if answer.get("infeasible"):
        console.print(_infeasible(answer))
    elif result.kind == "analyze":
        console.print(_grid([("Plan", _settings(answer, scenario)), ("Ceiling", _ceiling(answer))]))
    else:
        console.print(_grid([("Today", _today(answer, scenario)), ("Research", _research(answer)), ("Ceiling", _ceiling(answer))]))
    if not answer.get("infeasible"):
        console.print()
        console.print(_metrics(answer, scenario, alone=result.kind == "analyze"))
        _line(console, f"\nWhat binds: {answer['bottleneck']}.")
        if answer.get("engine_capacity"):
            _line(console, _start_up(answer["engine_capacity"], scenario["engine"]))
        if result.data.get("verification"):
            from kvopt.simulation.report import verdict

            _line(console, verdict(result.data["verification"], scenario))
    if "ledger" not in (answer.get("infeasible") or {}):
        console.print(_constraints(answer["constraints"], scenario))
    if result.kind == "sensitivity" and result.data.get("elasticities"):
        console.print(_elasticities(result.data["elasticities"]))
        _line(console, "Percent of sessions per GPU-hour for one percent less or more of the input; the plan stays, its load is solved again.", "dim")
    if result.data.get("points"):
        console.print(_front(result.data, scenario))
    _line(console, f"\n{USERS}", "dim")
    _effort(result.data.get("search"), console)


def _line(console: Console, line: str, style: str | None = None) -> None:
    console.print(line, style=style, markup=False, highlight=False)


def _grid(rows: Iterable[tuple[str, str]]) -> Table:
    """Lines with a name before each, wrapped beside it."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, line in rows:
        grid.add_row(name, line)
    return grid


def _table(title: str, columns: Sequence[str], words: Sequence[int] = (0,)) -> Table:
    """An empty table: the columns numbered in `words` are set left, the others are numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="italic", title_justify="left", title_style="bold")
    table.title = f"\n{title}" if title else None
    for index, name in enumerate(columns):
        left = index in words
        table.add_column(name, justify="left" if left else "right", overflow="fold", max_width=None if left else NUMBERS)
    return table


def _settings(point: dict[str, Any], scenario: dict[str, Any]) -> str:
    """The plan with every setting that an engine is given."""
    plan = point["plan"]
    parts = [
        f"{scenario['engine']} with {wording.methods(plan)}",
        wording.keeps(plan),
        wording.precision(plan),
        wording.grouping(plan),
        f"chunk {plan['chunk']:,.0f}",
        f"max-num-seqs {plan['max_num_seqs']}",
        wording.idle(plan, point["metrics"].get("users_thinking")),
    ]
    return ", ".join(part for part in parts if part) + "."


def _start_up(capacity: dict[str, Any], engine: str) -> str:
    """What the engine's log will say, and the second check: what lies outside its budget must fit too."""
    ends = f"{capacity['tokens_lower']:,} to {capacity['tokens_upper']:,}"
    at_once = f"{capacity['max_concurrency']:.1f} requests of {capacity['max_model_len']:,} tokens at once"
    said = f"At start-up {engine} should print about {capacity['tokens']:,} tokens of cache per group (90 %: {ends}), {at_once}."
    return f"{said} Beware: {capacity['warning']}." if capacity["warning"] else said


def _rates(metrics: dict[str, Any]) -> str:
    sessions, users = metrics["sessions_per_gpu_hour"], metrics["users_per_gpu"]
    return f"{QUANTITIES['sessions_per_gpu_hour'](sessions)} sessions per GPU-hour, {QUANTITIES['users_per_gpu'](users)} users per GPU"


def _today(answer: dict[str, Any], scenario: dict[str, Any]) -> str:
    metrics, bare = answer["metrics"], answer["baseline"]
    if not bare["sessions_per_gpu_hour"]:
        against = "uncompressed, these GPUs serve none within the targets"
    else:
        more = [wording.times(metrics[name], bare[name]) for name in ("sessions_per_gpu_hour", "users_per_gpu")]
        against = f"{more[0]} the uncompressed baseline" if more[0] == more[1] else f"{more[0]} and {more[1]} the uncompressed baseline"
    return f"{_settings(answer, scenario)} {_rates(metrics)}: {against}."


def _research(answer: dict[str, Any]) -> str:
    """The research optimum, and what it costs to run the deployable plan instead."""
    best, metrics = answer.get("research") or {}, answer["metrics"]
    if not best.get("plan"):
        return "no plan found."
    if best["plan"] == answer["plan"]:
        return "no other method with evidence does better."
    plan, found = best["plan"], best["metrics"]
    settings = ", ".join(part for part in (wording.methods(plan), wording.keeps(plan), wording.precision(plan), wording.grouping(plan)) if part)
    gap = f"{_rates(found)}: {wording.times(found['sessions_per_gpu_hour'], metrics['sessions_per_gpu_hour'])} today's plan"
    paid, cheaper = metrics["cost_per_session_usd"], found["cost_per_session_usd"]
    if paid is not None and cheaper is not None:
        gap += f", {wording.dollars(cheaper)} instead of {wording.dollars(paid)} per session"
    return f"{settings} ({plan['where']}). {gap}."


def _ceiling(answer: dict[str, Any]) -> str:
    """What prefill alone would allow; a research plan that computes less in prefill has its own."""
    metrics, found = answer["metrics"], (answer.get("research") or {}).get("metrics") or {}
    ceiling, rate = metrics["prefill_ceiling_per_gpu_hour"], metrics["sessions_per_gpu_hour"]
    if ceiling is None:
        return "the prefill ceiling is unknown."
    at = f" (now at {100 * rate / ceiling:.0f} % of it)" if rate else ""
    said = f"as long as prefill stays as it is, no cache compression lifts sessions above {number(ceiling)} per GPU-hour{at}; {LEVERS} would."
    if (found.get("prefill_s") or math.inf) < (1 - BINDS) * (metrics["prefill_s"] or 0):
        its = QUANTITIES["prefill_ceiling_per_gpu_hour"](found["prefill_ceiling_per_gpu_hour"])
        said += f" The research plan computes less in prefill: its ceiling is {its}."
    return said


def _metrics(answer: dict[str, Any], scenario: dict[str, Any], alone: bool) -> Table:
    """Answer, research optimum and uncompressed baseline side by side, or one plan alone."""
    research = answer.get("research") or {}
    shown: dict[str, Any] = {"plan": answer["metrics"]}
    if not alone:
        shown = {"answer": answer["metrics"], "research": research.get("metrics"), "uncompressed": answer["baseline"]}
    columns = {name: metrics for name, metrics in shown.items() if metrics}
    evidence = {"plan": answer.get("evidence"), "answer": answer.get("evidence"), "research": research.get("evidence")}
    table = _table("", ["", *columns])
    labels = _labels(scenario)
    table.add_row(f"One prompt of {scenario['context']:,.0f} tokens", style="italic")
    for name in PAPER:
        table.add_row(f"  {labels[name]}", *(QUANTITIES[name](metrics[name]) for metrics in columns.values()))
    table.add_row("Sessions as they come", style="italic")
    for name in (*SERVED, *JUDGED):
        table.add_row(f"  {labels[name]}", *(QUANTITIES[name](metrics[name]) for metrics in columns.values()))
        if name == "accuracy_lower" and any(evidence.values()):
            table.add_row("  Evidence for the accuracy", *(evidence.get(column) or "-" for column in columns))
    return table


def _labels(scenario: dict[str, Any]) -> dict[str, str]:
    """Names of the metrics, with the targets beside what they bound."""
    labels = {name: quantity.label for name, quantity in QUANTITIES.items()}
    for name in ("ttft_s", "tpot_s"):
        written = str(scenario.get(name.removesuffix("_s")) or "")
        percentile = f"{written.partition(':')[0]} " if ":" in written else ""
        labels[name] += f" (target {percentile}{QUANTITIES[name](scenario[name])})"
    labels["accuracy_retained"] += f" (floor {100 * scenario['accuracy_floor']:g} %, on {scenario['task']})"
    labels["accuracy_lower"] += f" at {100 * scenario['confidence']:g} % confidence"
    return labels


def _constraints(rows: Sequence[dict[str, Any]], scenario: dict[str, Any]) -> Table:
    """Value, limit and slack of every constraint, at the asked confidence."""
    table = _table(f"Constraints, at {100 * scenario['confidence']:g} % confidence", ["", "value", "limit", "slack", ""], words=(0, 4))
    for row in rows:
        say = CONSTRAINTS[row["name"]]
        table.add_row(say.label, say(row["value"]), say(row["limit"]), say(row["slack"]), _state(row), style=None if row["satisfied"] else "bold")
    return table


def _state(row: dict[str, Any]) -> str:
    if not row["satisfied"]:
        return "fails"
    if row["slack"] is None or row["limit"] is None:
        return "not in use" if row["value"] is None else ""
    return "binds" if row["slack"] <= BINDS * abs(row["limit"]) and row["value"] else ""


def _elasticities(found: dict[str, dict[str, float | None]]) -> Table:
    table = _table("Elasticities", ["", "less", "more"])
    for name, sides in found.items():
        table.add_row(
            name.replace("_", " "), *(wording.said(lambda value: f"{round(value, 2) + 0.0:.2f}", sides[side]) for side in ("left", "right"))
        )
    return table


def _front(data: dict[str, Any], scenario: dict[str, Any]) -> Table:
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


def _infeasible(answer: dict[str, Any]) -> Table:
    """Why nothing fits, by how much, and the least change that would help."""
    why = answer["infeasible"]
    say = CONSTRAINTS.get(why["constraint"])
    value, limit = (say(why[name]) if say else str(why[name]) for name in ("value", "limit"))
    what = "Weights and reserve, per GPU" if "ledger" in why else say.label if say else why["constraint"]
    sizes = why.get("ledger") or memory(answer)
    rows = [
        ("Infeasible", f"{why['reason'].partition('; per GPU')[0]}."),
        ("Value", f"{what}: {value}; the limit is {limit}."),
        ("Change", why["change"]),
        ("Memory", f"per GPU: {', '.join(f'{LEDGER[name]} {wording.said(wording.bytes_, size)}' for name, size in sizes.items())}."),
    ]
    research = answer.get("research") or {}
    if research.get("plan"):
        rows.append(("Research", f"{wording.methods(research['plan'])} ({research['plan']['where']}) would serve {_rates(research['metrics'])}."))
    return _grid(rows)


def memory(point: dict[str, Any]) -> dict[str, float | None]:
    """[bytes] of one GPU's memory as the engine divides it: weights, reserve, caches in use and what is left for more; `None` where unknown.

    Where attention is data-parallel its weights are held on more than one rank: what is `left` is right, `weights` is the even share.
    """
    plan, metrics = point["plan"], point["metrics"]
    spread_over = {"weights": plan["tp"] * plan["pp"], "reserve": plan["tp"], "caches": plan["tp"]}
    total = {"weights": metrics["weight_bytes"], "reserve": metrics["reserved_bytes"], "caches": metrics["memory_used_bytes"]}
    sizes = {name: None if size is None else size / spread_over[name] for name, size in total.items()}
    pool, used = metrics["kv_pool_bytes"], metrics["memory_used_bytes"]
    return {**sizes, "left": None if pool is None or used is None else (pool - used) / plan["tp"]}


def _effort(search: dict[str, Any] | None, console: Console) -> None:
    if search and search.get("evaluations"):
        compiling = f", {search['compile_seconds']:.0f} s of it compiling" if search.get("compile_seconds") else ""
        _line(console, f"{search['evaluations']:,} evaluations in {search['seconds']:.0f} s{compiling}.", "dim")
