"""A plan as a page shows it: every setting and where it runs, what it gives, what binds, and the command that starts it."""

from __future__ import annotations

from typing import Any

from kvopt import block_report, report, tables, wording
from kvopt.export import ENGINES, export_point
from kvopt.wording import CONSTRAINTS, QUANTITIES

Rows = list[tuple[str, str]]
READINESS = ("engine-ready", "research library", "needs a trained checkpoint")
SHOWN = (*tables.SERVED, *tables.JUDGED, *tables.PAPER)


def described(point: dict[str, Any], scenario: dict[str, Any], title: str) -> dict[str, Any]:
    """One plan in words: `{title, where, settings, metrics, constraints, binds, start_up, evidence, command}`; `command` is None where kvopt writes none."""
    plan, metrics = point["plan"], point["metrics"]
    engine, labels = plan.get("engine", scenario["engine"]), tables.labels(scenario)
    capacity = point.get("engine_capacity")
    return {
        "title": title,
        "where": plan["where"],
        "settings": settings(plan, metrics, engine),
        "metrics": [(labels[name], QUANTITIES[name](metrics[name])) for name in SHOWN if name in metrics],
        "constraints": [_constraint(row) for row in point.get("constraints", ())],
        "binds": point.get("bottleneck", ""),
        "start_up": report.start_up(capacity, engine) if capacity else "",
        "evidence": point.get("evidence", ""),
        "engine": engine,
        "command": command(point, scenario, engine),
    }


def settings(plan: dict[str, Any], metrics: dict[str, Any], engine: str) -> Rows:
    """Every setting of a plan with its name."""
    found = [("Engine", engine)]
    used = [setting for setting in plan.get("settings", ()) if setting["method"] in plan["methods"]]
    found += [(f"Method, {setting['dimension']}", f"{setting['method']} ({wording.label(setting, engine)})") for setting in used]
    found += [] if used else [("Methods", wording.methods(plan))]
    found += [("Keeps", f"{100 * plan[name]:.3g} % of {what}") for name, what in wording.KEPT.items() if plan[name] < 1]
    if plan.get("blocks"):
        found.append(("By layer or head", block_report.described(plan["blocks"])))
    own = f", which keep {wording.percent(plan['weights_retained'])} of the accuracy" if plan["weights_retained"] < 1 else ""
    found += [("Precision", wording.precision(plan)), ("Weights", f"{plan['weights']}{own}"), ("GPUs", wording.grouping(plan))]
    found += [("Chunk", f"{plan['chunk']:,.0f} tokens of prompt per step"), ("max-num-seqs", f"{plan['max_num_seqs']:,} per group")]
    found += [
        ("Decodes in flight", f"{wording.number(plan['decodes_in_flight'])} per group"),
        ("Idle caches", wording.idle(plan, metrics.get("users_thinking"))),
    ]
    if plan.get("prefix_cache_tokens"):
        found.append(("Shared prefixes", f"{plan['prefix_cache_tokens']:,.0f} tokens kept in HBM"))
    return found


def _constraint(row: dict[str, Any]) -> tuple[str, str, str, str, str]:
    say = CONSTRAINTS[row["name"]]
    return say.label, say(row["value"]), say(row["limit"]), say(row["slack"]), tables.state(row)


def command(point: dict[str, Any], scenario: dict[str, Any], engine: str) -> dict[str, Any] | None:
    """What starts the plan in its engine: `{files, notes, cannot}`; None where kvopt writes nothing for that engine."""
    if engine not in ENGINES or "engine" not in point["plan"]:  # an older kvopt wrote a plan without its engine
        return None
    made = export_point(engine, scenario, point)
    return {"files": list(made.files.items()), "notes": list(made.notes), "cannot": list(made.cannot)}
