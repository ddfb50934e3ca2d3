"""What a person reads of a simulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from kvopt import wording
from kvopt.results import Result
from kvopt.simulation.figures import PERCENTILES

LATENCIES = {
    "ttft_first_s": "First token, first question",
    "ttft_follow_up_s": "First token, later ones",
    "ttft_worse_s": "First token, the worse",
    "tpot_s": "Per output token",
    "queueing_s": "Waiting to be admitted",
    "e2e_s": "Question to last token",
}
RATES = {
    "sessions_per_gpu_hour": "Sessions per GPU-hour",
    "output_tokens_per_gpu_s": "Output tokens per GPU, /s",
    "decodes_in_flight": "Decodes in flight",
}
BUSY = {
    "compute": "Steps running",
    "prefill": "Steps with prompts",
    "hbm": "HBM blocks of requests",
    "hbm_idle": "HBM blocks of idle caches",
    "link": "Host link",
}
NOTE = "x: simulated over closed form. Percentiles are over requests, the mean time per output token over tokens."


def show(result: Result, console: Console) -> None:
    """Prints the figures beside those of the closed form, or the one line that says why there are none."""
    data = result.data
    if "infeasible" in data:
        console.print(f"Infeasible: {data['infeasible']['reason']}.", markup=False, highlight=False, soft_wrap=True)
        return
    console.print(f"simulate: {wording.question(data['scenario'])}", style="bold", markup=False, highlight=False)
    console.print(_told(data), markup=False, highlight=False)
    console.print(_latencies(data))
    console.print(_others(data))
    simulated = data["simulation"]
    refused = f", {simulated['refused_sessions']:,} sessions refused as longer than the pool" if simulated["refused_sessions"] else ""
    counted = f"{simulated['requests']:,} requests in {wording.seconds(simulated['seconds'])}, {simulated['preemptions']:,} preemptions{refused}."
    console.print(f"\n{counted}", markup=False, highlight=False)
    console.print(NOTE, style="dim", markup=False, highlight=False)


def _told(data: dict[str, Any]) -> str:
    told, plan = data["traffic"], data["plan"]
    if told["kind"] == "users":
        source = f"{told['users']:,} users of one group, {told['thinking']} think time"
    elif told["kind"] == "rate":
        source = f"{wording.number(told['sessions_per_s'])} sessions a second on one group, at random"
    else:
        source = f"{told['sessions']:,} sessions of a trace"
    settings = f"{wording.methods(plan)}, {wording.grouping(plan)}, chunk {told['chunk']:,}, max-num-seqs {told['max_num_seqs']}"
    return f"{source}; {settings}; seed {told['seed']}."


def _table(title: str, columns: list[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="italic", title_justify="left", title_style="bold", title=f"\n{title}")
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if index else "left", overflow="fold")
    return table


def _latencies(data: dict[str, Any]) -> Table:
    names = ["mean", *(f"p{p}" for p in PERCENTILES)]
    table = _table("Latencies", ["", *names])
    for key, label in LATENCIES.items():
        simulated, said, ratio = data["simulation"][key], data["closed_form"][key], data["ratio"][key]
        if simulated["mean"] is None:
            continue
        table.add_row(label, *(wording.said(wording.seconds, simulated[name]) for name in names))
        table.add_row("  closed form", *(wording.seconds(said[name]) if said.get(name) is not None else "" for name in names), style="dim")
        table.add_row("  ratio", *(f"x{ratio[name]:.2f}" if ratio.get(name) is not None else "" for name in names), style="dim")
    return table


def _others(data: dict[str, Any]) -> Table:
    table = _table("Throughput and use", ["", "simulated", "closed form", "ratio"])
    rows: list[tuple[str, Callable[[float], str], float, float | None, float | None]] = [
        (label, wording.number, data["simulation"][key], data["closed_form"].get(key), data["ratio"].get(key)) for key, label in RATES.items()
    ]
    use = [data[part].get("utilisation", {}) for part in ("simulation", "closed_form", "ratio")]
    rows += [(label, wording.percent, use[0][key], use[1].get(key), use[2].get(key)) for key, label in BUSY.items()]
    for label, say, simulated, said, ratio in rows:
        table.add_row(label, say(simulated), "" if said is None else say(said), "" if ratio is None else f"x{ratio:.2f}")
    return table


def verdict(found: dict[str, Any], scenario: dict[str, Any]) -> str:
    """Whether a plan holds its targets, in one line."""
    if "infeasible" in found:
        return f"Simulated: {found['infeasible']['reason']}."
    ttft, tpot = found["ttft_worse_s"]["p95"], found["tpot_s"]["p95"]
    said = [
        f"time to first token {wording.said(wording.seconds, ttft)} (target {wording.seconds(scenario['ttft_s'])})",
        f"time per output token {wording.said(wording.seconds, tpot)} (target {wording.seconds(scenario['tpot_s'])})",
    ]
    holds = "holds" if found["holds_at_p95"] else "does not hold"
    rate = f"{wording.number(found['sessions_per_gpu_hour'])} sessions per GPU-hour"
    return f"Simulated with {found['traffic']['users']} users a group: {rate}; the plan {holds} its targets at p95: {', '.join(said)}."
