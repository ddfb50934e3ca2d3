"""Plans by layer and head on a real model: as good as trying everything, bounded, and what they say when evaluated setting by setting."""

import dataclasses

import numpy as np
import pytest

from kvopt import api
from kvopt.compiling import clock
from kvopt.errors import BadInput
from kvopt.inputs import method
from kvopt.inputs.choice import MethodChoice
from kvopt.inputs.scenario import Scenario
from kvopt.problem import resolve
from kvopt.search.blocks.answer import exactly
from kvopt.search.blocks.front import BlockSearch
from kvopt.search.blocks.optimum import at_floor, front_bounds, losses
from kvopt.search.blocks.plan import lower_end
from kvopt.search.lanes import make_choices

SMALL = {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 2, "context": "64k"}
RATE = "sessions_per_gpu_hour"


def searched(names, width, **changes):
    problem = resolve(Scenario.of(**{**SMALL, "per": width, **changes}))
    chosen = MethodChoice.of(*(method.load(name) for name in names))
    return problem, BlockSearch(problem, make_choices(problem, [chosen]), width)


def test_the_best_plan_by_layer_is_that_of_trying_every_plan():
    problem, search = searched(["kivi"], "layer")
    layers, values = len(search.blocks.row), len(search.values.settings)
    assert np.allclose(search.blocks.share, 1 / layers), "layers that are alike: a plan is how many of them have which value"
    counts = [(a, b) for a in range(layers + 1) for b in range(layers + 1 - a)]
    every = np.array([np.repeat([0, 1, 2], [layers - a - b, a, b]) for a, b in counts])
    assert values == 3
    share = search.blocks.share
    lower = lower_end(share @ search.values.middle[every], share @ search.values.edge[every])
    within = every[lower <= -np.log(problem.scenario.accuracy_floor)]
    tried = search.schedules.best(search.plans(within))
    holds = (tried.broken[:, :-1] <= 0).all(axis=1)
    expected = np.exp(-tried.logs[holds, search.schedules.goal].min())
    optimum = at_floor(search, problem.scenario.accuracy_floor)
    got, most = (np.exp(-log) for log in (optimum.plans.logs[0, search.schedules.goal], optimum.bound_log))
    assert got >= 0.995 * expected
    assert most >= expected * (1 - 1e-6)
    assert most <= 1.03 * got
    assert np.exp(-optimum.relaxed_log) <= most * (1 + 1e-3)


@pytest.mark.parametrize(("names", "width"), [(["kivi"], "layer"), (["kvzip", "kivi"], "head")])
def test_a_front_is_bounded_at_every_point(names, width):
    problem, search = searched(names, width)
    front = search.front(24, 0.5)
    kept = front.rows(np.flatnonzero((front.broken <= 0).all(axis=1)))
    assert len(kept.x) > 5
    gaps = 100 * np.expm1(kept.logs[:, search.schedules.goal] - front_bounds(search, kept))
    assert np.all(gaps >= 0)
    assert np.median(gaps) <= 1
    assert gaps.max() <= 3
    lossy = losses(search, kept.picks)
    assert np.all(lossy <= kept.budget + 1e-9)
    points = exactly(problem, search, kept)
    for row, point in enumerate(points):
        assert float(point.state.values[RATE]) == pytest.approx(np.exp(-kept.logs[row, search.schedules.goal]), rel=2e-4)
        assert -np.log(float(point.state.retained)) == pytest.approx(lossy[row], rel=1e-6, abs=1e-9)


def test_the_same_search_gives_the_same_front_and_compiles_nothing_more():
    _, first = searched(["kivi"], "layer")
    one = first.front(16, 0.5)
    before = clock().seconds
    _, second = searched(["kivi"], "layer", context="48k", ttft="40s")
    second.front(16, 0.5)
    assert clock().seconds == before
    _, again = searched(["kivi"], "layer")
    other = again.front(16, 0.5)
    for name in ("picks", "lane", "x", "logs"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_layers_that_matter_more_keep_more():
    _, search = searched(["kvzip"], "head")
    rng = np.random.default_rng(0)
    share = rng.permutation(np.linspace(0.2, 1.8, len(search.blocks.row)))
    search.blocks = dataclasses.replace(search.blocks, share=share / share.sum())
    front = search.front(8, 0.5)
    tokens = search.values.settings[front.picks[-2], 0]
    assert np.corrcoef(tokens, share)[0, 1] > 0.5
    assert np.mean(tokens[share > 1.4]) > np.mean(tokens[share < 0.6])


def test_an_engine_gets_precision_by_layer_and_the_plan_reads_back():
    result = api.optimize(Scenario.of(**SMALL, per="layer", accuracy_floor=0.994))
    per = result.data["per"]["deployable"]
    assert len(per["methods"]) == 1
    assert result.data["bound"]["gap_percent"] >= 0
    plan = result.data["plan"]
    assert plan["blocks"]["per"] == "layer"
    table = np.array(plan["blocks"]["key_bits"])
    assert set(np.unique(table)) == {8.0, 16.0}
    assert per[RATE] > 1.005 * per["uniform_" + RATE]
    again = api.evaluate(plan, Scenario.of(**SMALL, per="layer", accuracy_floor=0.994))
    for name in (RATE, "accuracy_retained", "kv_bytes_per_session", "prefill_s"):
        assert again.data["metrics"][name] == pytest.approx(result.data["metrics"][name], rel=1e-9), name
    assert "kvtuner.yaml" in result.files
    assert "Bound" in str(result)
    assert "Each layer apart" in str(result)


def test_models_whose_layers_cannot_be_set_apart_are_refused():
    with pytest.raises(BadInput, match="one latent or one KV head"):
        searched(["kivi"], "head", model="deepseek-v3", accelerator="h200-sxm", gpus=8)
    with pytest.raises(BadInput, match="per layer or head takes"):
        api.optimize(Scenario.of(**SMALL, per="layer"), objective="ttft_s")
