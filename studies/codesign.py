"""The study `codesign`: what hardware or what compression so many users need, when 1M costs what 4K does, and the card that serves most per dollar."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvopt import named
from kvopt.codesign import Codesign, best_card
from kvopt.equal_cost import CUTS, EqualCost, ratio_for_equal_cost
from kvopt.inputs.scenario import Scenario
from kvopt.inverse import HARDWARE, KEPT, Least, least, served
from kvopt.metrics import LABELS
from kvopt.plots import write_figure
from kvopt.problem import resolve
from kvopt.search.pipeline import Progress
from kvopt.wording import CONSTRAINTS, number
from objectives.codesign import QUANTITIES
from studies.codesign_plot import figure
from studies.result import StudyResult

QUESTION = "What hardware or what compression do so many users need, when does 1M cost what 4K does, and which card serves most per dollar?"
DEFAULT: dict[str, Any] = {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1, "context": "64k"}
MORE = 1.5  # times the users that the deployment serves as it is, where none are asked for
ASKED = ("hbm_bytes", "hbm_bandwidth", "flops", KEPT)
UNITS: dict[str, tuple[str, str, float]] = {
    "hbm_bytes": ("HBM", "GB", 1e-9),
    "hbm_bandwidth": ("HBM bandwidth", "GB/s", 1e-9),
    "flops": ("16-bit FLOP/s", "TFLOP/s", 1e-12),
    "scaleup_bandwidth": ("scale-up link", "GB/s", 1e-9),
    "host_bandwidth": ("host link", "GB/s", 1e-9),
    "host_memory": ("host memory", "GB", 1e-9),
    KEPT: ("share of the cache kept", "", 1.0),
}
"""What each quantity is called, its unit, and how many of these one SI unit is."""
OF_CARD = {field: name for name, field in HARDWARE.items()}
COLUMNS = ("question", "of", "unit", "at hand", "answer", "times", "remark")


def run(
    out: Path | None = None,
    progress: Progress | None = None,
    users: float | None = None,
    method: str | None = None,
    per: str = "dollar",
    long: str | int = "1M",
    short: str | int = "4K",
    **fields: Any,
) -> StudyResult:
    """Rows for the least hardware and the least compression that serve `users`, for the equal cost of `long` and `short`, and for the best card.

    `users`: over the whole deployment; absent: half as many again as it serves now. `method`: the compression that is asked about, beside an ideal one. `per`:
    `dollar` or `joule`. `out`: folder for the picture. Llama-3.1-8B with 64,000 tokens on one H100 unless fields of `Scenario` say otherwise.
    Raises `BadInput`.
    """
    tell = progress or (lambda phase, share: None)
    scenario = Scenario.of(**{**DEFAULT, **fields})
    problem = resolve(scenario)
    problem.require_known()
    now = served(problem, named.best_case(problem))
    wanted = users if users is not None else MORE * now if now > 0 else 1.0
    found = []
    for place, quantity in enumerate(ASKED):
        tell(f"least {UNITS[quantity][0]}", 0.1 * place)
        found.append(least(quantity, wanted, scenario))
    found += [least(KEPT, wanted, scenario, method=method)] if method is not None else []
    asked = {name: value for name, value in scenario.model_dump(exclude_unset=True).items() if name not in ("context", "methods", "fidelity")}
    tell("equal cost", 0.4)
    costs = ratio_for_equal_cost(long=long, short=short, **asked)
    tell("best card", 0.6)
    card = best_card(scenario, per)
    rows = (*map(_least, found), *(_equal(cost, f"{long} at the cost of {short}") for cost in costs), *_card(card))
    if out is not None:
        write_figure(figure(rows), out, "codesign")
    notes = (*_said(scenario, now, wanted), *_equal_notes(costs, str(long), str(short)), *_card_notes(card), *problem.warnings)
    return StudyResult(title=QUESTION, columns=COLUMNS, rows=rows, notes=notes)


def _least(found: Least) -> dict[str, Any]:
    name, unit, scale = UNITS[found.quantity]
    if found.feasible:
        remark = f"then {LABELS[found.constraint]} binds" + ("; less would do" if found.at_edge and found.quantity != KEPT else "")
    else:
        say = CONSTRAINTS[found.constraint]
        limit = f"{LABELS[found.constraint]}, {say(found.found)} where {say(found.limit)} is the limit"
        remark = f"not by this alone: {limit}; at most {number(found.served)} users"
    return {
        "question": f"least for {number(found.users)} users",
        "of": f"{name}, {found.method}" if found.method else name,
        "unit": unit,
        "at hand": found.at_hand * scale,
        "answer": None if found.value is None else found.value * scale,
        "times": found.times,
        "remark": remark,
    }


def _equal(found: EqualCost, question: str) -> dict[str, Any]:
    helps = found.hours_ratio is not None
    return {
        "question": question,
        "of": f"ratio, {found.cut}; {found.fidelity}",
        "unit": "",
        "at hand": 1.0,
        "answer": found.hours_ratio,
        "times": found.hours_ratio,
        "remark": f"equal bytes at {'no ratio' if found.bytes_ratio is None else number(found.bytes_ratio)}"
        + ("" if helps else f"; no ratio: {number(found.remains)} times the GPU-hours remain, {number(found.prefill)} of prefill alone"),
    }


def _card(card: Codesign) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for field in QUANTITIES:
        if field not in card.numbers:
            continue
        own = card.numbers[field]
        name, unit, scale = UNITS[OF_CARD[field]]
        remark = f"elasticity of the rate {number(own.right)} up, {number(own.left)} down; of the cost {number(own.cost_share)}"
        rows.append(
            {
                "question": f"best card per {card.per}",
                "of": name,
                "unit": unit,
                "at hand": own.reference * scale,
                "answer": own.best * scale if card.feasible else None,
                "times": own.factor if card.feasible else None,
                "remark": remark if card.feasible else "",
            }
        )
    binding = ", ".join(dict.fromkeys(LABELS[name] for name in card.binding)) or "nothing"
    better = card.worth / card.reference_worth if card.reference_worth > 0 and card.feasible else None
    rows.append(
        {
            "question": f"best card per {card.per}",
            "of": f"sessions per {card.per}",
            "unit": "",
            "at hand": card.reference_worth,
            "answer": card.worth,
            "times": better,
            "remark": f"binding: {binding}" if card.feasible else "no card in the box serves",
        }
    )
    return rows


def _said(scenario: Scenario, now: float, wanted: float) -> tuple[str, ...]:
    return (
        f"{scenario.model} on {scenario.gpus} x {scenario.accelerator}, {scenario.context} tokens of context: {number(now)} users now, {number(wanted)} asked; "
        "each least row moves its own quantity alone, the load and the fate of idle caches solved again; numbers are per GPU",
    )


def _equal_notes(found: Sequence[EqualCost], long: str, short: str) -> tuple[str, ...]:
    untouched = [cost for cost in found if cost.cut == next(iter(CUTS))]
    left = "; ".join(f"{cost.fidelity}: {number(cost.prefill)} times" for cost in untouched)
    return (
        f"{long} at the cost of {short}: GPU-hours per session at the largest load, latency targets set aside, an ideal compression; what prefill alone "
        f"takes of a session of {long}, over all that {short} takes ({left}), no ratio brings down unless it cuts prefill as well",
        "all four, along tokens: attention falls with the square of what is kept; along heads the linear layers stay, along layers both fall in proportion. At "
        "calibrated fidelity the prompt keeps its steps, each of which reads all weights: only a prompt of fewer tokens saves these",
    )


def _card_notes(card: Codesign) -> tuple[str, ...]:
    fit, unit = card.fit, "USD/h" if card.per == "dollar" else "W"
    fitted, left_out = (
        f"{100 * median:.0f} % (90th percentile {100 * p90:.0f} %)"
        for median, p90 in ((fit.median_error, fit.p90_error), (fit.left_out_median, fit.left_out_p90))
    )
    return (
        "best card: every number within a factor of 4 of the accelerator's, host memory and engine as they are; it costs "
        f"{number(card.cost)} {unit} where the accelerator costs {number(card.reference_cost)}; a random search of as many cards ({card.evaluations:,}) "
        f"finds {number(card.random_worth)} sessions per {card.per} where this finds {number(card.worth)}",
        f"{fit.kind} ({fit.tag}): linear and non-negative in the numbers, fitted to {len(fit.cards)} accelerators of the catalog, median error {fitted}, "
        f"{left_out} on cards left out; in proportion, so that the accelerator itself costs what the catalog says. It orders ideas, it prices no card",
    )
