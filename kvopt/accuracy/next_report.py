"""What a person reads of `kvopt next`."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from kvopt import wording
from kvopt.results import Result

SHOWN = 4  # alternatives that are named beside the choice


def show(result: Result, console: Console) -> None:
    """Prints the choice, its regret, the measurements with a command each, and how their results are fed back."""
    data = result.data

    def line(text: str, style: str = "") -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    line(f"next: {wording.question(data['scenario'])}", "bold")
    line(
        f"At {data['bytes_kept']:.1%} of the cache's bytes ({data['bytes_why']}), {_said(data['choice'])} should keep most for {data['scenario']['task']}."
    )
    others = data["alternatives"][1 : 1 + SHOWN]
    if others:
        line(f"After it: {', '.join(map(_said, others))}; {len(data['alternatives'])} methods with evidence in all.")
    line(f"Expected regret of that choice: {data['regret_points']:.2f} points of retained accuracy.")
    if data["certain"] or not data["measurements"]:
        alone = "no other method with evidence keeps so few bytes" if not others else "the choice is certain"
        line(f"Nothing needs measuring: {alone}." if data["certain"] else "No single measurement would reduce it.")
        return
    line(f"Measure on {data['measurements'][0]['model']}, in this order:")
    console.print(_table(data["measurements"]))
    for one in data["measurements"]:
        line(f"[{one['rank']}] {one['run']}")
    line("Run the uncompressed model in the same way for the baseline (kvpress: --press_name no_press; vLLM: kv_cache_dtype=auto).")
    line(f"Then write one row per result ({', '.join(data['feed_back']['columns'])}) and run {data['feed_back']['command']}.")


def _said(option: dict[str, Any]) -> str:
    return f"{option['method']} ({option['keeps']}, {option['expected_retained']:.1%})"


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("", "Method", "Keeps", "Benchmark", box=None)
    table.add_column("Regret after", justify="right")
    for one in rows:
        where = f"{one['benchmark']}, {one['context_len']:,.0f} tokens"
        table.add_row(str(one["rank"]), one["method"], one["keeps"], where, f"{one['regret_after_points']:.2f}")
    return table
