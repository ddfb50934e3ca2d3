"""The study `phase_diagram`: over context, think time and the share of the cache kept, which resource keeps one card from serving more."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from kvopt import named
from kvopt.errors import BadInput
from kvopt.inputs.quantities import parse_duration, parse_tokens
from kvopt.inputs.scenario import Scenario
from kvopt.metrics import LABELS, NEARLY
from kvopt.plots import write_figure
from kvopt.problem import Problem, resolve
from kvopt.search.ideal import free
from kvopt.search.lanes import memory_left
from kvopt.search.pipeline import Progress
from kvopt.wording import count, number, seconds
from objectives.limits import NAMES
from studies.phase_grid import ALIKE, JUDGED, Plane, evaluated
from studies.phase_plot import figure
from studies.result import StudyResult

QUESTION = "Over context length, think time and the share of the KV cache that is kept, which resource binds?"
RESOURCES: dict[str, tuple[str, ...]] = {
    "HBM capacity": ("hbm", "hbm_peak"),
    "HBM bandwidth (TPOT)": ("tpot_s",),
    "prefill FLOP/s (TTFT)": ("prefill_utilisation", "ttft_s"),
    "host memory": ("host_memory",),
    "host link": ("host_link",),
    "max-num-seqs": ("max_sequences",),
}
"""The resources by the constraints that stand for them. HBM capacity comes first: it may bind beside another."""
SHORT = {"HBM capacity": "HBM %", "HBM bandwidth (TPOT)": "TPOT %", "prefill FLOP/s (TTFT)": "prefill %"}  # others: the name and a percent sign
AT = (16384, 65536, 262144)  # [tokens] where the boundary of HBM is told
DEFAULT: dict[str, Any] = {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1}
MOST = 200  # lengths, times or shares of one plane


def run(
    out: Path | None = None,
    progress: Progress | None = None,
    shortest: str | int = "4K",
    longest: str | int = "1M",
    contexts: int = 33,
    think_from: str | float = "1s",
    think_to: str | float = "1h",
    thinks: int = 25,
    kept: str | float | Sequence[str | float] = ("1", "1/4", "1/16", "1/64"),
    **fields: Any,
) -> StudyResult:
    """One row per share kept. The plane has `contexts` lengths and `thinks` think times, evenly on a logarithmic scale; `kept`: `1,1/4` or a list.

    The share is kept of everything that a cache costs but the work of filling it, and of an ideal compression: accuracy is not part of the question. The plan
    is the scenario's, with the better fate of idle caches and the best share of them in HBM, cell by cell, at the largest load that it carries.
    Llama-3.1-8B on one H100 unless fields of `Scenario` say otherwise. `out`: folder for the picture. Raises `BadInput`.
    """
    for name in ("context", "think", "head_scores"):
        if fields.get(name) is not None:
            raise BadInput("option", name, "this study goes through contexts and think times, with whole layers and heads")
    lengths = _steps("contexts", float(parse_tokens(shortest, "shortest")), float(parse_tokens(longest, "longest")), contexts)
    times = _steps("thinks", parse_duration(think_from, "think_from"), parse_duration(think_to, "think_to"), thinks)
    shares = _shares(kept)
    asked = {**DEFAULT, **fields}
    tell = progress or (lambda phase, share: None)
    tell("scenarios", 0.0)
    problems = [resolve(Scenario.of(**{**asked, "context": round(length)})) for length in lengths]
    first = problems[0]
    first.require_known()
    free(named.methods(first)[0])
    if memory_left(first, named.groupings(first)[:1], first.checkpoints[0])[0] <= 0:
        told = f"the weights of {first.model.id} do not fit on {first.scenario.gpus} x {first.accelerator.id}"
        return StudyResult(QUESTION, (), (), (told,), ok=False)
    if float(np.max(first.sessions.turns)) <= 1:
        raise BadInput("turns", float(np.max(first.sessions.turns)), "must be more than one: nobody thinks within a session of one answer")
    tell("the plane", 0.3)
    plane = evaluated(problems, times, np.array([float(share) for share in shares]))
    if out is not None:
        write_figure(figure(plane, masks(plane), [str(share) for share in shares], _titled(first)), out, "phase_diagram")
    rows = tuple(_row(plane, place, str(share)) for place, share in enumerate(shares))
    return StudyResult(title=QUESTION, columns=tuple(rows[0]), rows=rows, notes=_notes(first, plane, rows))


def masks(plane: Plane) -> dict[str, np.ndarray]:
    """Where each resource binds, and where nobody is served for want of it (`no HBM`, `too slow`): `(kept, think, context)` booleans.

    A cell may be in several: all constraints within `NEARLY` of their limit bind, as `kvopt.metrics.bottleneck` names them.
    """
    names = [NAMES[place] for place in JUDGED]
    found = {resource: plane.serves & plane.binds[..., [names.index(name) for name in of]].any(axis=-1) for resource, of in RESOURCES.items()}
    lacks = ~plane.serves & plane.binds[..., [names.index(name) for name in RESOURCES["HBM capacity"]]].any(axis=-1)
    return found | {"no HBM": lacks, "too slow": ~plane.serves & ~lacks}


def _steps(name: str, low: float, high: float, count_: int) -> np.ndarray:
    if not 2 <= count_ <= MOST:
        raise BadInput(name, count_, f"must be 2 to {MOST}")
    if low >= high:
        raise BadInput(name, f"{low:g} to {high:g}", "must end above where it begins")
    return np.geomspace(low, high, count_)


def _shares(kept: str | float | Sequence[str | float]) -> list[Fraction]:
    listed = kept.split(",") if isinstance(kept, str) else [kept] if isinstance(kept, int | float) else list(kept)
    try:
        found = [Fraction(str(entry).strip()).limit_denominator(10**6) for entry in listed]
    except (ValueError, ZeroDivisionError):
        found = []
    if not found or not all(0 < share <= 1 for share in found):
        raise BadInput("kept", kept, "must be shares above 0 and at most 1, as 1,1/4,1/16")
    return sorted(set(found), reverse=True)


def _row(plane: Plane, place: int, share: str) -> dict[str, Any]:
    found = {name: mask[place] for name, mask in masks(plane).items()}
    row: dict[str, Any] = {"kept": share}
    row |= {SHORT.get(name, f"{name} %"): 100 * float(found[name].mean()) for name in RESOURCES}
    row |= {"no HBM %": 100 * float(found["no HBM"].mean()), "too slow %": 100 * float(found["too slow"].mean())}
    for tokens in AT:
        if plane.contexts[0] <= tokens <= plane.contexts[-1]:
            column = int(np.abs(np.log(plane.contexts / tokens)).argmin())
            row[f"HBM from, s at {tokens // 1024}K"] = first_think(plane, found["HBM capacity"][:, column])
    column = int(np.abs(np.log(plane.thinks / 60)).argmin())
    served = np.flatnonzero(plane.serves[place, column])
    row["longest context"] = float(plane.contexts[served[-1]]) if len(served) else None
    return row


def first_think(plane: Plane, binds: np.ndarray) -> float | None:
    """[s] the shortest think time at which something binds; none where it never does."""
    rows = np.flatnonzero(binds)
    return float(plane.thinks[rows[0]]) if len(rows) else None


def _titled(problem: Problem) -> str:
    scenario = problem.scenario
    return f"{problem.model.id} on {scenario.gpus} x {problem.accelerator.id}, {scenario.fidelity}, {problem.engine.id}"


def _notes(problem: Problem, plane: Plane, rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    ttft, tpot = problem.latency_targets
    w = problem.sessions
    turns, answer = (float(np.sum(w.weight * values)) for values in (w.turns, w.answer))
    failing = [LABELS[NAMES[JUDGED[place]]] for place in np.flatnonzero((~plane.serves[..., None] & plane.binds).any(axis=(0, 1, 2)))]
    return (
        f"{_titled(problem)}; {turns:g} questions a session, answers of {answer:g} tokens; TTFT {seconds(ttft.seconds)} at the shortest context, "
        f"TPOT {seconds(tpot.seconds)}",
        f"{np.prod(plane.rate.shape):,} cells: {len(plane.kept)} shares kept x {len(plane.thinks)} think times from {number(plane.thinks[0])} to "
        f"{number(plane.thinks[-1])} s x {len(plane.contexts)} contexts from {count(plane.contexts[0])} to {count(plane.contexts[-1])} tokens",
        "a share of the plane: the percent of its cells in which a resource binds; where two bind, both count. A constraint binds within "
        f"{100 * NEARLY:g} % of its limit, at the largest load of the cell's best plan; of plans that serve alike to {100 * ALIKE:g} %, the one that keeps the "
        "fewest idle caches in HBM",
        "no HBM: not even one session at a time fits beside the weights; too slow: one at a time misses a latency target"
        + (f". What fails somewhere: {', '.join(dict.fromkeys(failing))}" if failing else ""),
        "HBM from, s: the shortest think time at which HBM is full, at that context; longest context: served at about a minute of think time [tokens]",
        *problem.warnings,
    )
