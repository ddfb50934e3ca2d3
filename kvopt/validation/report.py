"""A validation as a person reads it: errors by quantity and group, the rows that lie furthest off, and what was refused."""

from __future__ import annotations

from collections import defaultdict

from rich.console import Console
from rich.table import Table

from kvopt.validation.errors import Errors, measured, percent
from kvopt.validation.run import MIDDLE, Validation

WORST = 8  # rows shown


def show(result: Validation, console: Console) -> None:
    """Prints the whole report."""
    data = result.data
    quoted = "the middle of the prediction" if result.confidence == MIDDLE else f"what a plan would quote at {100 * result.confidence:g} % confidence"
    console.print(
        f"{data['predicted']} of {data['rows']} rows of {result.file} predicted, {len(data['refused'])} refused; predicted is {quoted}.",
        highlight=False,
    )
    if data["errors"]:
        console.print(_errors("all rows", data["errors"], data["by_group"]))
        console.print(_worst(result))
    if data["refused"]:
        console.print(_refused(result))


def _errors(title: str, whole: Errors, groups: dict[str, Errors]) -> Table:
    table = Table("rows", "quantity", box=None, title="Errors: predicted against measured", title_justify="left")
    for column in ("n", "median %", "90th pct %", "bias %", "in 90 % interval", "over-predicted"):
        table.add_column(column, justify="right")
    shown = [(title, whole), *(groups.items() if len(groups) > 1 else ())]
    for name, found in shown:
        for quantity, values in found.items():
            numbers = [f"{values[key]:.1f}" for key in ("median_abs_pct", "p90_abs_pct", "bias_pct")]
            shares = [f"{100 * values['interval_coverage']:.0f} %", f"{values['over_predicted_pct']:.0f} %"]
            table.add_row(name, quantity, f"{values['n']:.0f}", *numbers, *shares)
    return table


def _worst(result: Validation) -> Table:
    table = Table("line", "row", "quantity", box=None, title="Furthest off", title_justify="left", padding=(0, 1, 0, 0))
    for column in ("measured", "predicted", "error %"):
        table.add_column(column, justify="right")
    table.add_column("why it may be")
    rows = [
        (result.deviations.get(quantity, percent)(prediction.predicted, value), outcome, prediction, value)
        for quantity, found in measured(result.outcomes).items()
        for outcome, prediction, value in found
    ]
    for error, outcome, prediction, value in sorted(rows, key=lambda row: -abs(row[0]))[:WORST]:
        why = outcome.why or ("inside its interval" if prediction.lower <= value <= prediction.upper else "outside its interval")
        table.add_row(str(outcome.line), outcome.label, prediction.quantity, f"{value:.5g}", f"{prediction.predicted:.5g}", f"{error:+.1f}", why)
    return table


def _refused(result: Validation) -> Table:
    lines: dict[str, list[int]] = defaultdict(list)
    for outcome in result.outcomes:
        if outcome.refused:
            lines[outcome.why].append(outcome.line)
    table = Table("rows", "refused because", "lines", box=None, title="Refused", title_justify="left")
    for why, found in sorted(lines.items(), key=lambda entry: -len(entry[1])):
        named = ", ".join(str(line) for line in found[:8]) + (", ..." if len(found) > 8 else "")
        table.add_row(str(len(found)), why, named)
    return table
