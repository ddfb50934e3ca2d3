"""The pictures of the studies, of a few made-up rows: every axis says what it shows, and nothing is drawn outside of the figure."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure

from studies import (
    accuracy_plot,
    benchmark_plot,
    bounds_plot,
    codesign_plot,
    method_regret_plot,
    paper_plot,
    planners_plot,
    regret_plot,
    simulation_plot,
    sweep_plot,
    validation_plot,
)
from studies.spread_plot import Spread

ERRORS = np.linspace(-0.3, 0.4, 20)
FRONT = {"variables": 96, "scenario": "llama-3.1-8b, h100-sxm x 4, 128,000 tokens, kvzip + kivi"}
LOST = {"picks": 40, "median loss %": 0.0, "90th pct loss %": 30.0, "over the limit %": 12.0, "by % (median)": 9.0}
PUBLISHED = {"unit": "s", "published": "14.1"}
SESSION = {"prefill": 14.1, "answers": 49.0, "context switches": 5.5}


def accuracy() -> Figure:
    one = accuracy_plot.Drawn(np.array(["token", "bits"] * 10), np.exp(-abs(ERRORS)), np.exp(ERRORS - 0.4))
    return accuracy_plot.figure({"series": one, "model": one})


def benchmark() -> Figure:
    rates = {
        "what": "one atom",
        "values per s": 1e6,
        "gradients per s": 2e5,
        "gradient / value": 5.0,
        "compile value s": 1.0,
        "compile gradient s": 4.0,
    }
    return benchmark_plot.figure([rates, {"what": "import kvopt", "seconds": 0.01}])


def bounds() -> Figure:
    uniform = [{"plan": "uniform", "gap %": gap, "below everything tried %": 0.0} for gap in (1e-9, 1e-3, 0.1)]
    return bounds_plot.figure([*uniform, {"plan": "per layer", "gap %": 0.1, "worst gap %": 0.2, **FRONT}])


def codesign() -> Figure:
    least = {"question": "least for 75 users", "of": "HBM", "unit": "GB", "at hand": 85.0, "answer": 170.0, "times": 2.0, "remark": "then it binds"}
    none = least | {"answer": None, "times": None, "remark": "not by this alone: HBM; at most 54 users"}
    equal = least | {"question": "1M at the cost of 4K", "of": "ratio, stored and read; peak", "unit": ""}
    left = equal | {"answer": None, "times": None, "remark": "equal bytes at 256; no ratio: 357 times the GPU-hours remain, 322 of prefill alone"}
    return codesign_plot.figure([least, none, equal, left, least | {"question": "best card per dollar", "times": 0.25}])


def method_regret() -> Figure:
    row = {"left out": "its benchmark", "n": 60, "median": 1.0, "75th pct": 4.0, "90th pct": 30.0}
    rows = [row | {"cells": cells, "who picks": who} for cells, who in (("all", "kvopt"), ("all", "at random"), ("rank", "kvopt"), ("all", "asked"))]
    return method_regret_plot.figure([*rows, *(one | {"left out": "all of its model"} for one in rows[:2])], ["kvopt", "at random"], ["asked"])


def paper() -> Figure:
    rows = [{"quantity": "prefill, 50K", "computed": 14.8, "verdict": "does not reproduce", **PUBLISHED}]
    rows += [{"quantity": "KV cache, 4K", "computed": 14.1, "verdict": "reproduces", **PUBLISHED}]
    return paper_plot.figure([*rows, rows[0] | {"published": None}], {"50K,\npublished": SESSION}, 5, 60.0)


def planners() -> Figure:
    pairs = np.stack([ERRORS, ERRORS + 0.3], axis=1)
    return planners_plot.figure({"all dense": {"ttft_s": pairs, "tpot_ms": pairs}, "b200": {"ttft_s": pairs}}, ["all dense", "b200"])


def regret() -> Figure:
    ours = {"groups": "all groups", "who picks": "kvopt", **LOST}
    return regret_plot.figure([ours, ours | {"median loss %": None, "90th pct loss %": None}, ours | {"who picks": "aiconfigurator 0.12.0"}])


def simulation() -> Figure:
    row = {"kind": "MoE", "sessions": 1.0, "TPOT": 1.3, "TTFT": 0.9, "sessions/GPU-h": 400.0, "TPOT ms": 30.0, "TTFT s": 0.5}
    return simulation_plot.figure([row, row | {"kind": "dense", "TTFT s": 9.0}], {"sessions": 0.1, "TPOT": 0.1, "TTFT": 0.2})


def sweep() -> Figure:
    row = {"model": "a", "status": "feasible", "reason": None, "sessions_per_gpu_hour": 900.0, "gain_over_baseline": 1.5, "methods": "fp8"}
    return sweep_plot.figure(
        [row | {"bottleneck": "HBM size; 31 % of it"}, row | {"status": "infeasible", "reason": "no", "sessions_per_gpu_hour": None}], ["model"]
    )


def validation() -> Figure:
    return validation_plot.figure(
        {"all": {"fitted": ERRORS, "model left out": 2 * ERRORS}, "maximum load, Blackwell FP4, dense": {"fitted": ERRORS[:3]}}
    )


ALL = (accuracy, benchmark, bounds, codesign, method_regret, paper, planners, regret, simulation, sweep, validation)


@pytest.mark.parametrize("made", ALL, ids=lambda made: made.__name__)
def test_axes_are_named_and_nothing_is_cut(made: Callable[[], Figure]) -> None:
    figure = made()
    figure.draw_without_rendering()
    whole = figure.bbox.padded(2)
    for axes in figure.axes:
        assert any(one.get_xlabel() for one in axes.get_shared_x_axes().get_siblings(axes))
        alike = axes.get_shared_y_axes().get_siblings(axes)
        assert any(one.get_ylabel() or one.get_yticklabels() for one in alike)
        low, high = sorted(axes.get_ylim())
        ticks = [label for label in axes.get_yticklabels() if low <= label.get_position()[1] <= high]
        for text in (axes.xaxis.label, axes.yaxis.label, *ticks, *axes.texts, axes._left_title):
            if text.get_text() and text.get_visible():
                box = text.get_window_extent()
                assert whole.containsx(box.x0), text.get_text()
                assert whole.containsx(box.x1), text.get_text()


def test_users_take_turns_on_the_gpu() -> None:
    spans = paper_plot.played(SESSION, 5, 60.0, users=3)
    busy = sorted((start, end) for _, what, start, end in spans if what != "thinks")
    assert all(later[0] >= earlier[1] - 1e-9 for earlier, later in pairwise(busy))
    for name, count in (("prefill", 3), ("answers", 15), ("context switches", 12)):
        assert sum(what == name for _, what, _, _ in spans) == count
    alone = paper_plot.played(SESSION, 5, 60.0, users=1)
    assert sum(end - start for _, what, start, end in alone if what == "context switches") == 0


def test_spread_of_values() -> None:
    assert Spread.of(np.arange(101)) == (10, 25, 50, 75, 90)


def test_a_sweep_says_how_many_cells_it_draws() -> None:
    row = {"model": "a", "status": "infeasible", "reason": "no", "sessions_per_gpu_hour": None, "gain_over_baseline": None, "methods": None}
    (axes,) = sweep_plot.figure([row] * (sweep_plot.MOST + 1), ["model"]).axes
    assert "first 60 of 61 cells" in axes.get_title(loc="left")
