"""What a person reads of a result in a terminal: three lines with the answer, then tables, in human units."""

from __future__ import annotations

import io
import math
from typing import Any

from rich.console import Console

from kvopt import block_report, head_summary, tables, wording
from kvopt.realise import gap
from kvopt.results import Result
from kvopt.tables import BINDS
from kvopt.wording import CONSTRAINTS, GLOSSARY, QUANTITIES, number

WIDTH = 100  # columns of `text`
LEVERS = "prefix reuse, sparse prefill, layer skipping or separate prefill accelerators"
LEDGER = {"usable": "for the engine", "weights": "weights", "reserve": "engine's reserve", "caches": "caches in use", "left": "left for caches"}
PRICES = (
    "Less, more: percent of sessions per GPU-hour for one percent less or more of the input. The plan stays, its load and what stays in HBM are solved again; "
    "for the accuracy floor plans are searched again. Two numbers are what the derivative says and what 10 % (or the whole unit) does, where they differ by "
    "more than a fifth. A looser target also counts as more users by itself: sessions may last longer."
)
USERS = " ".join(f"{name}: {GLOSSARY[name]}" for name in ("Users", "Requests in flight"))


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
    if result.kind == "next":
        from kvopt.accuracy.next_report import show as show_next

        return show_next(result, console)
    if result.kind == "explain":
        from kvopt.explanation.show import show as show_explained

        return show_explained(result, console)
    scenario = result.data["scenario"]
    answer = result.data.get("answer") or result.data
    put(console, f"{result.kind}: {wording.question(scenario)}", "bold")
    if answer.get("infeasible"):
        console.print(tables.grid(infeasible(answer)))
    elif result.kind == "analyze":
        console.print(tables.grid([("Plan", settings_of(answer, scenario)), ("Ceiling", ceiling(answer))]))
    else:
        console.print(tables.grid([("Today", today(answer, scenario)), *bound(answer), *lost(answer), ("Ceiling", ceiling(answer))]))
        if result.data.get("per"):
            console.print()
            for line in block_report.lines(result.data["per"], scenario["per"]):
                put(console, line)
        if (answer.get("plan") or {}).get("blocks"):
            put(console, block_report.described(answer["plan"]["blocks"]))
    if not answer.get("infeasible"):
        console.print()
        console.print(tables.metrics(answer, scenario, alone=result.kind == "analyze"))
        put(console, f"\nWhat binds: {answer['bottleneck']}.")
        if answer.get("heads"):
            for line in head_summary.lines(answer["heads"], answer["plan"].get("engine", scenario["engine"])):
                put(console, line)
        if answer.get("engine_capacity"):
            put(console, start_up(answer["engine_capacity"], answer["plan"].get("engine", scenario["engine"])))
        if result.data.get("verification"):
            from kvopt.simulation.report import verdict

            put(console, verdict(result.data["verification"], scenario))
    if "ledger" not in (answer.get("infeasible") or {}):
        console.print(tables.constraints(answer["constraints"], scenario))
    if result.kind == "sensitivity" and result.data.get("elasticities"):
        console.print(tables.elasticities(result.data["elasticities"]))
        put(console, PRICES, "dim")
    if answer.get("engines"):
        console.print(tables.engines(answer["engines"]))
    if result.data.get("points"):
        console.print(tables.front(result.data, scenario))
    if result.data.get("chance"):
        from kvopt.chances import lines

        for line in lines(result.data["chance"]):
            put(console, line)
    for line in outcomes((result.data.get("search") or {}).get("outcomes")):
        put(console, line)
    put(console, f"\n{USERS}", "dim")
    _effort(result.data.get("search"), console)


def put(console: Console, said: str, style: str | None = None) -> None:
    """Prints text as it is, without markup or highlights."""
    console.print(said, style=style, markup=False, highlight=False)


def settings_of(point: dict[str, Any], scenario: dict[str, Any]) -> str:
    """The plan with every setting that an engine is given."""
    plan = point["plan"]
    parts = [
        f"{plan.get('engine', scenario['engine'])} with {wording.labelled(plan)}",
        wording.keeps(plan),
        wording.precision(plan),
        wording.grouping(plan),
        f"chunk {plan['chunk']:,.0f}",
        f"max-num-seqs {plan['max_num_seqs']}",
        wording.idle(plan, point["metrics"].get("users_thinking")),
    ]
    return ", ".join(part for part in parts if part) + "."


def start_up(capacity: dict[str, Any], engine: str) -> str:
    """What the engine's log will say, and the second check: what lies outside its budget must fit too."""
    ends = f"{capacity['tokens_lower']:,} to {capacity['tokens_upper']:,}"
    at_once = f"{capacity['max_concurrency']:.1f} requests of {capacity['max_model_len']:,} tokens at once"
    said = f"At start-up {engine} should print about {capacity['tokens']:,} tokens of cache per group (90 %: {ends}), {at_once}."
    return f"{said} Beware: {capacity['warning']}." if capacity["warning"] else said


def _rates(metrics: dict[str, Any]) -> str:
    sessions, users = metrics["sessions_per_gpu_hour"], metrics["users_per_gpu"]
    return f"{QUANTITIES['sessions_per_gpu_hour'](sessions)} sessions per GPU-hour, {QUANTITIES['users_per_gpu'](users)} users per GPU"


def today(answer: dict[str, Any], scenario: dict[str, Any]) -> str:
    """The deployable plan, what it serves, and that against the uncompressed baseline."""
    metrics, bare = answer["metrics"], answer["baseline"]
    if not bare["sessions_per_gpu_hour"]:
        against = "uncompressed, these GPUs serve none within the targets"
    else:
        more = [wording.times(metrics[name], bare[name]) for name in ("sessions_per_gpu_hour", "users_per_gpu")]
        against = f"{more[0]} the uncompressed baseline" if more[0] == more[1] else f"{more[0]} and {more[1]} the uncompressed baseline"
    return f"{settings_of(answer, scenario)} {_rates(metrics)}: {against}."


def bound(answer: dict[str, Any]) -> list[tuple[str, str]]:
    """How much better any plan could be, and how far the model itself may be off."""
    most = answer.get("bound") or {}
    if most.get("gap_percent") is None:
        return []
    beyond, off = most["gap_percent"], most["model_percent"]
    more = "no deployable plan serves more" if beyond < 5e-3 else f"no deployable plan serves over {beyond:.2g} % more"
    world = f"prefill may take {off['prefill']:.0f} % and decoding {off['decode']:.0f} % longer than predicted" if any(off.values()) else "at peak"
    return [("Bound", f"{more}, within the model; the model itself: {world}.")]


def lost(answer: dict[str, Any]) -> list[tuple[str, str]]:
    """The research optimum, and what it costs to run the deployable plan instead."""
    best, metrics = answer.get("research") or {}, answer["metrics"]
    if not best.get("plan"):
        return [("Research", "no plan found.")]
    if best["plan"] == answer["plan"]:
        return [("Research", "no other method with evidence does better: nothing is lost.")]
    plan, found, price = best["plan"], best["metrics"], answer.get("gap") or gap(answer)
    engine = [f"at the speed of {plan['engine']}"] if plan.get("engine") != answer["plan"].get("engine") else []
    settings = [wording.labelled(plan), wording.keeps(plan), wording.precision(plan), wording.grouping(plan), *engine]
    said = f"{', '.join(part for part in settings if part)} ({plan['where']}). {_rates(found)}: "
    said += f"{wording.times(found['sessions_per_gpu_hour'], metrics['sessions_per_gpu_hour'])} today's plan."
    return [("Research", said), ("Gap", _gap(price, metrics, found))]


def _gap(lost: dict[str, Any], metrics: dict[str, Any], found: dict[str, Any]) -> str:
    """What running the deployable plan instead of the research optimum costs, and for want of what."""
    more, saved = lost["sessions_per_gpu_hour_percent"], lost["cost_per_session_usd"]
    parts = [wording.said(lambda value: f"{value:+.0f} % sessions per GPU-hour", more)]
    if saved is not None:
        cheaper, paid = wording.dollars(found["cost_per_session_usd"]), wording.dollars(metrics["cost_per_session_usd"])
        parts.append(f"{cheaper} instead of {paid} per session ({wording.dollars(abs(saved))} {'saved' if saved >= 0 else 'more'})")
    wanting = f"what makes the difference: {', '.join(lost['methods'])}" if lost["methods"] else "with the same methods"
    return f"{', '.join(parts)}; {wanting}."


def ceiling(answer: dict[str, Any]) -> str:
    """What prefill alone would allow; a research plan that computes less in prefill has its own."""
    metrics, found = answer["metrics"], (answer.get("research") or {}).get("metrics") or {}
    most, rate = metrics["prefill_ceiling_per_gpu_hour"], metrics["sessions_per_gpu_hour"]
    if most is None:
        return "the prefill ceiling is unknown."
    at = f" (now at {100 * rate / most:.0f} % of it)" if rate else ""
    said = f"as long as prefill stays as it is, no cache compression lifts sessions above {number(most)} per GPU-hour{at}; {LEVERS} would."
    if (found.get("prefill_s") or math.inf) < (1 - BINDS) * (metrics["prefill_s"] or 0):
        its = QUANTITIES["prefill_ceiling_per_gpu_hour"](found["prefill_ceiling_per_gpu_hour"])
        said += f" The research plan computes less in prefill: its ceiling is {its}."
    return said


def infeasible(answer: dict[str, Any]) -> list[tuple[str, str]]:
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
    return rows


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


def outcomes(found: dict[str, Any] | None) -> list[str]:
    """Which choices of a search are infeasible whatever their settings, and why; nothing where none is."""
    if not found or not found["by_code"]:
        return []
    said = []
    for row in found["by_code"]:
        by = "" if row["least_excess_percent"] is None else f", by {number(row['least_excess_percent'])} % at least"
        said.append(f"{row['count']:,} {row['message']}{by} ({row['change']})")
    return [
        f"\n{found['feasible']:,} of {found['lanes']:,} choices of grouping, weights and methods have feasible settings. Of the others, and what would do:",
        f"{'; '.join(said)}.",
    ]


def _effort(search: dict[str, Any] | None, console: Console) -> None:
    if search and search.get("evaluations"):
        compiling = f", {search['compile_seconds']:.0f} s of it compiling" if search.get("compile_seconds") else ""
        put(console, f"{search['evaluations']:,} evaluations in {search['seconds']:.0f} s{compiling}.", "dim")
