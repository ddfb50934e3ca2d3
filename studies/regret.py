"""The study `regret`: what is lost by letting kvopt pick the settings, on benchmarks that it has not seen.

Rows that differ in their settings alone (tensor parallelism, batch, engine version) form a group. The whole group is left out of the fit; kvopt picks the
setting with the highest predicted throughput per GPU whose predicted TPOT is within a limit; its measured throughput is compared with that of the best
measured setting within the limit.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kvopt.calibration.folds import settings_group
from kvopt.calibration.measurement import Measurement
from kvopt.inputs import profile
from kvopt.plots import write_figure
from kvopt.search.pipeline import Progress
from studies.evidence import AICONFIGURATOR, LATENCY, table
from studies.left_out import left_out, rows_of
from studies.regret_plot import figure
from studies.result import StudyResult

QUESTION = "What does the best predicted setting lose against the best measured one, its whole group left out of the fit?"
LIMITS_MS = (10.0, 15.0, 20.0, 30.0, 50.0, 100.0, math.inf)
FEWEST = 3  # settings of a group


@dataclass(frozen=True)
class Setting:
    """One measured setting: tokens/s per GPU and TPOT [s], measured and predicted; `peer` is aiconfigurator's prediction where there is one.

    `inside`: whether the measured throughput lies in the 90 % interval of the predicted one.
    """

    group: str
    measured: tuple[float, float]
    predicted: tuple[float, float]
    peer: tuple[float, float] | None
    inside: bool = True


@dataclass(frozen=True)
class Pick:
    """One decision: the loss against the best measured setting, and how far its measured TPOT exceeds the limit (shares; 0 where it holds)."""

    group: str
    limit_ms: float
    loss: float
    excess: float
    certain: bool  # only one choice was right and no other near: nothing to decide
    inside: bool = True


def run(out: Path | None = None, progress: Progress | None = None, path: Path = LATENCY) -> StudyResult:
    """One row per accelerator and engine, kvopt beside aiconfigurator where it has predictions for the whole group.

    `path`: the measurements. `out`: folder for the picture.
    """
    if progress is not None:
        progress("fitting with each group of settings left out", 0.0)
    found = settings(path)
    ours = picks(found, lambda one: one.predicted)
    peers = {group for group, members in _groups(found).items() if all(one.peer for one in members)}
    with_peer = [one for one in found if one.group in peers]
    beside = picks(with_peer, lambda one: one.peer or (0.0, 0.0))
    same = picks(with_peer, lambda one: one.predicted)
    rows = [
        _row("all groups", "kvopt", ours),
        *(_row(name, "kvopt", [pick for pick in ours if _family(pick.group) == name]) for name in sorted({_family(pick.group) for pick in ours})),
        _row("groups that aiconfigurator predicts", "kvopt", same),
        _row("groups that aiconfigurator predicts", "aiconfigurator 0.12.0", beside),
    ]
    if out is not None:
        write_figure(figure(rows), out, "regret")
    notes = (
        f"{len(_groups(found))} groups of {FEWEST} settings or more; limits on TPOT of {', '.join(f'{limit:g}' for limit in LIMITS_MS[:-1])} ms and none",
        "loss: of the pick's measured throughput per GPU against the best measured setting within the limit; over the picks that hold the limit",
        "over the limit: share of the picks whose measured TPOT exceeds the limit, and by how much the median one of these does",
        "in interval: share of the picks whose measured throughput lies in the 90 % interval of kvopt's prediction",
        "aiconfigurator's predictions rest on kernel tables that were measured on the same accelerators",
    )
    return StudyResult(title=QUESTION, columns=tuple(rows[0]), rows=tuple(rows), notes=notes)


def settings(path: Path = LATENCY) -> list[Setting]:
    """Every setting of the measurements that states or implies a throughput and a TPOT."""
    found = left_out("settings", path)
    peers = {row.text("id"): row for row in table(AICONFIGURATOR).rows}
    identity = {row.line: row.text("source_id") for row in table(path).rows}
    data = found.data
    values = rows_of(found, range(len(data.measurements)))
    made = []
    for case, one in enumerate(data.measurements):
        measured, predicted = rate(one, measured_seconds(one)), rate(one, values[case])
        if measured is None or predicted is None:
            continue
        row = peers.get(identity.get(one.line, ""))
        peer = None
        if row is not None and row.text("aic_predicted_ttft_ms"):
            seconds = {"ttft_s": float(row.text("aic_predicted_ttft_ms")) / 1e3, "tpot_ms": float(row.text("aic_predicted_tpot_ms")) / 1e3}
            peer = rate(one, seconds)
        inside = _inside(one, math.log(measured[0] / predicted[0]))
        made.append(Setting(f"{settings_group(one)} {one.experiment}", measured, predicted, peer, inside))
    members = _groups(made)
    return [one for one in made if len(members[one.group]) >= FEWEST]


def _inside(one: Measurement, error: float) -> bool:
    """Whether ln(measured / predicted) of a throughput lies in the interval that kvopt prints: that of the time it is made of, turned round."""
    evidence = profile.closest(one.accelerator, one.engine, one.weights, one.model.id, one.model.routed).evidence
    spread = profile.fitted().spread
    if one.experiment == "max load":
        low, high = spread["throughput_tok_s"][evidence]
        return low <= error <= high
    low, high = spread["e2e_s" if one.experiment == "batch" else "tpot_ms"][evidence]
    return low <= -error <= high


def measured_seconds(one: Measurement) -> dict[str, float]:
    """What was measured, times in seconds."""
    return {name: value * (1e-3 if name == "tpot_ms" else 1.0) for name, value in one.measured.items()}


def rate(one: Measurement, seconds: dict[str, float]) -> tuple[float, float] | None:
    """(tokens/s per GPU, TPOT [s]) of a setting from its readings; none where they do not say both. A maximum load knows no TPOT."""
    if one.experiment == "closed loop" and {"ttft_s", "tpot_ms"} <= seconds.keys():
        busy = seconds["ttft_s"] + one.output * seconds["tpot_ms"]
        return one.batch * one.output / busy / one.gpus, seconds["tpot_ms"]
    if one.experiment == "batch" and "e2e_s" in seconds and one.output > 1:
        return one.batch * one.output / seconds["e2e_s"] / one.gpus, seconds["e2e_s"] / one.output
    if one.experiment == "max load":
        return seconds["throughput_tok_s"] / one.gpus, 0.0
    return None


def picks(found: Sequence[Setting], told: Callable[[Setting], tuple[float, float]]) -> list[Pick]:
    """The pick of each group at each limit that at least one measured setting holds; a limit that changes nothing is asked once."""
    made = []
    for group, members in _groups(found).items():
        asked: set[tuple[int, ...]] = set()
        for limit_ms in LIMITS_MS:
            limit = limit_ms / 1e3
            holding = tuple(place for place, one in enumerate(members) if one.measured[1] <= limit)
            if not holding or holding in asked:
                continue
            asked.add(holding)
            allowed = [one for one in members if told(one)[1] <= limit] or [min(members, key=lambda one: told(one)[1])]
            pick = max(allowed, key=lambda one: told(one)[0])
            best = max(members[place].measured[0] for place in holding)
            excess = max(0.0, pick.measured[1] / limit - 1) if limit < math.inf else 0.0
            made.append(Pick(group, limit_ms, 1 - pick.measured[0] / best, excess, len(holding) == 1, pick.inside))
    return made


def _row(name: str, who: str, made: Sequence[Pick]) -> dict[str, Any]:
    kept = np.array([max(pick.loss, 0.0) for pick in made if not pick.excess])
    broken = np.array([pick.excess for pick in made if pick.excess])
    return {
        "groups": name,
        "who picks": who,
        "picks": len(made),
        "median loss %": float(100 * np.median(kept)) if len(kept) else None,
        "90th pct loss %": float(100 * np.percentile(kept, 90)) if len(kept) else None,
        "over the limit %": 100 * len(broken) / len(made) if made else None,
        "in interval %": 100 * float(np.mean([pick.inside for pick in made])) if made else None,
        "by % (median)": float(100 * np.median(broken)) if len(broken) else None,
    }


def _family(group: str) -> str:
    """Accelerator and engine of a group's name."""
    return " ".join(group.split(" ")[1:3])


def _groups(found: Sequence[Setting]) -> dict[str, list[Setting]]:
    members: dict[str, list[Setting]] = collections.defaultdict(list)
    for one in found:
        members[one.group].append(one)
    return dict(members)
