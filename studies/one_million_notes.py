"""What the study `one_million` says below its table: facts, each from the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from kvopt.problem import Problem
from kvopt.wording import number
from objectives.serving.prefill import prompt_flop, prompt_shares
from studies.methods_rows import said
from studies.one_million_levers import Stage, in_turn, points_of, shares
from studies.one_million_search import Answer, Levers, measured

ENDLESS = 1e12  # [tokens] longer than anything measured: what counts as measured there does not say at what length
MET = 1.001  # times the target: what rounding leaves of it


def notes(problem: Problem, levers: Levers, answers: Mapping[tuple[str, str], Answer], stages: Sequence[Stage], new: float | None) -> tuple[str, ...]:
    """All of them. `stages`: both contexts uncompressed and 1M with one lever after another; `new`: prompt tokens that may be new beside a reused prefix."""
    scenario, times = problem.scenario, levers.base / levers.target
    first, last = stages[0].label, stages[1].label
    return (
        f"{problem.model.id} on {scenario.gpus} x {problem.accelerator.id}, {levers.deployment.label}, {scenario.fidelity} fidelity, {problem.task}; "
        f"combinations chosen by their loss at {100 * scenario.confidence:g} % confidence, of {len(levers.methods)} methods with evidence",
        f"from {first} to {last} the cache grows {number(times[0])} times, the time that a decoded token takes for it {number(times[1])}, a context switch "
        f"{number(times[2])}, prefill {number(times[3])}",
        "x short: the worst of the row's own metrics over that of the short context, 1 where it costs the same; of decoding, the time for the cache alone. "
        "cut by: share of each lever in the logarithm of the reduction. ratios: beyond, where one was not measured on this task",
        *(_goal(problem, name, answer, levers) for (name, asked), answer in answers.items() if asked == "least loss"),
        *_floor(problem, answers),
        _contributions(problem, answers[("all of the cache", "least loss")]),
        *_prefill(problem, levers, answers, stages, new),
        _evidence(problem, levers),
    )


def _evidence(problem: Problem, levers: Levers) -> str:
    """How much of this was measured at such a length and in such combinations."""
    anywhere, here = (reached(problem, levers, context) for context in (ENDLESS, problem.context))
    unstated = f" ({len(anywhere)} state no length)" if anywhere else ""
    return (
        f"{len(here - anywhere)} of the {len(levers.methods)} methods were measured on this task near {problem.context:,.0f} tokens{unstated}, and no source "
        "measured more than two compressed dimensions at once: these accuracies are extrapolated in context and in combination, their intervals with them"
    )


def reached(problem: Problem, levers: Levers, context: float) -> set[str]:
    """The methods of which some ratio counts as measured on this task near a context [tokens]."""
    return {
        method.id
        for place, method in enumerate(levers.methods)
        if any(measured(problem, levers.choices[place + 1], x, context) for x in levers.x[levers.of == place] if np.any(x != levers.x[0]))
    }


def _columns(name: str) -> list[int]:
    return {"cache held": [0], "decoding": [1], "context switch": [2], "all of the cache": [0, 1, 2], "prefill": [3]}[name]


def remains(name: str, answer: Answer) -> float:
    """How many times the target the worst of a goal's metrics is."""
    return float(answer.remains[_columns(name)].max())


def _plan(problem: Problem, answer: Answer) -> str:
    return said(points_of(problem, [(answer.choice, answer.x)])[0]) or "no method"


def _goal(problem: Problem, name: str, answer: Answer, levers: Levers) -> str:
    left = remains(name, answer)
    needed = float((levers.base / levers.target)[_columns(name)].max())
    said_so = "reaches it" if left <= MET else f"comes within {number(left)} times it, no combination nearer"
    kept, low = 100 * np.exp(-answer.loss), 100 * np.exp(-answer.worst)
    sure = f", {low:.2g} % at the lower end" if problem.scenario.confidence > 0.5 else ""
    return f"{name} ({number(needed)} times to cut): {_plan(problem, answer)} {said_so}, with {kept:.1f} % of the accuracy kept{sure}"


def _floor(problem: Problem, answers: Mapping[tuple[str, str], Answer]) -> list[str]:
    parts = [f"{name} {number(remains(name, answer))}" for (name, asked), answer in answers.items() if asked == "above the floor"]
    floor = 100 * problem.scenario.accuracy_floor
    return [f"above the accuracy floor of {floor:g} % what remains, times the short context's: {', '.join(parts)}"]


def _contributions(problem: Problem, answer: Answer) -> str:
    found = shares(in_turn(problem, answer.choice, answer.x), [0])
    return "of the reduction of the cache held, all of the cache: " + (", ".join(f"{label} {100 * share:.0f} %" for label, share in found) or "none")


def _prefill(problem: Problem, levers: Levers, answers: Mapping[tuple[str, str], Answer], stages: Sequence[Stage], new: float | None) -> list[str]:
    arch = problem.architecture
    plan, effects = levers.choices[0].methods.bounds()[1], levers.choices[0].methods.effects()
    linear, attention = (
        float(part) for part in prompt_flop(arch, prompt_shares(arch, plan, effects), jnp.asarray(0.0), jnp.asarray(problem.context))
    )
    share = 100 * attention / (linear + attention)
    short = stages[0].costs[3]
    rest = float(levers.base[3]) * linear / (linear + attention) / short
    told = [
        f"prefill is {share:.0f} % attention at {problem.context:,.0f} tokens: were that free, the linear layers alone would take about "
        f"{number(rest)} times the short prompt; no compression of the cache touches them, only a shorter prompt, fewer layers, or a reused prefix does"
    ]
    if new is not None:
        told.append(
            f"a prefix that is found in a cache loses nothing: with all but {new:,.0f} tokens reused, the prompt takes as long as the short one"
        )
    return told
