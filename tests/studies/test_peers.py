"""The study `peers`: runs that are timed and kept, and their table."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest

from kvopt.errors import BadInput
from kvopt.search.vector_problem import Axis, Evaluated, VectorProblem
from studies import peers, peers_adapters, peers_guided, peers_runs, peers_table
from studies.peers_plot import apart, figure
from studies.peers_runs import Recorder, TimeUp, curve, hypervolume, spread

REFERENCE = np.array([1.0, 1.0])


class Toy(VectorProblem):
    """Two goals that pull apart over the first of two coordinates, the second one's share too much; no model behind it."""

    def __init__(self, most: float = math.inf) -> None:
        self.left = most  # points until the time is over
        super().__init__([Axis.bins("kind", 3), Axis.spaced("share", np.linspace(0, 1, 101), logarithmic=False)], np.array([0, 1]))

    def measure(self, index):
        if self.left <= 0:
            raise TimeUp
        self.left -= len(index)
        kind, share = index[:, 0], index[:, 1] / 100
        goals = np.column_stack([share, (1 - share) ** 2 + 0.1 * kind])
        violation = np.where(share > 0.9, share - 0.9, -0.1)
        return Evaluated(goals, violation, violation <= 0)

    exact = measure
    reference = REFERENCE
    program = shared = points = relaxed = None


def recorder(most: float = math.inf, seconds: float = 1e6) -> Recorder:
    return Recorder(Toy(most), time.time(), seconds, REFERENCE)


@pytest.mark.parametrize("method", ["random", "Sobol", "SciPy DE"])
def test_a_run_ends_with_the_front(method: str) -> None:
    own = recorder(most=20_000)
    with pytest.raises(TimeUp):
        peers_adapters.METHODS[method].run(own, 0)
    own.problem.left = math.inf
    found = peers_runs.result(own)
    share = np.arange(91) / 100
    best = hypervolume(np.column_stack([share, (1 - share) ** 2]), REFERENCE)
    assert found["curve"][-1][1] == pytest.approx(best, rel=2e-3)
    assert all(later[0] > earlier[0] and later[1] > earlier[1] for earlier, later in zip(found["curve"], found["curve"][1:], strict=False))
    assert found["evaluated"] > 91
    assert found["dropped"] == 0
    assert max(goals[0] for goals in found["front"]) <= 0.9


def test_what_is_not_feasible_in_double_precision_is_left_out() -> None:
    own = recorder()
    own.problem.exact = lambda index: Toy.measure(own.problem, index)._replace(feasible=index[:, 1] != 50)
    own.evaluate(own.problem.vector(np.array([[0, 50], [0, 60]])))
    found = peers_runs.result(own)
    assert found["dropped"] == 1
    assert found["front"] == [[0.6, pytest.approx(0.16)]]


def test_an_alarm_ends_what_never_asks() -> None:
    own = recorder(seconds=0.05)
    with pytest.raises(TimeUp), peers_runs.alarm(own):
        time.sleep(30)


def test_hypervolume_over_time() -> None:
    times = np.array([2.0, 1.0, 3.0, 3.0])
    points = np.array([[0.25, 0.75], [0.5, 0.5], [0.6, 0.6], [0.75, 0.25]])
    assert curve(times, points, REFERENCE) == [(1.0, 0.25), (2.0, 0.3125), (3.0, 0.375)]
    assert hypervolume(np.array([[2.0, 0.1]]), REFERENCE) == 0


def test_shares_fill_the_gaps() -> None:
    shares = spread()
    assert [next(shares) for _ in range(7)] == [0, 1, 0.5, 0.25, 0.75, 0.125, 0.625]


def test_rounding_stays_beside_the_relaxed_value() -> None:
    toy = Toy()
    found = peers_guided.rounded(toy, np.array([0.5, 0.4525]), 50, np.random.default_rng(0))
    assert set(np.round(found[:, 1], 9)) == {0.45, 0.46}
    assert set(toy.repair(found)[:, 0]) == {1}


def canned(method: str, seed: int, steps: list[tuple[float, float]], front: list[list[float]], seconds: float = 60.0) -> dict:
    run = {"problem": "toy", "method": method, "seed": seed, "seconds": seconds, "reference": [1.0, 1.0], "first_s": 0.5, "evaluated": 595, "kept": 9}
    return {**run, "dropped": 0, "curve": steps, "front": front, "peak_mb": 100.0, "ended_s": 60.0, "versions": {"jax": "0"}}


@pytest.fixture
def runs() -> list[dict]:
    """Best known: [0.2, 0.2] and nothing else, 0.64."""
    return [
        canned("random", 0, [(1.5, 0.32), (20.0, 0.6)], [[0.25, 0.2]]),
        canned("random", 1, [(1.5, 0.48), (40.0, 0.64)], [[0.2, 0.2]]),
        canned("kvopt", 0, [(0.9, 0.16), (4.0, 0.64)], [[0.2, 0.2]]),
        canned("kvopt", 1, [(0.9, 0.16), (6.0, 0.64)], [[0.2, 0.2]]),
    ]


def test_the_table_of_canned_runs(runs: list[dict]) -> None:
    first, second = peers_table.rows(runs, 60.0)
    assert (first["method"], first["60 s"], first["5 s"]) == ("kvopt", pytest.approx(1), pytest.approx(0.625))
    assert (second["method"], second["60 s"], second["2 s"]) == ("random", pytest.approx((0.6 + 0.64) / 2 / 0.64), pytest.approx(0.4 / 0.64))
    assert (first["s to 99 %"], first["s to 99 % excl."]) == (5.0, 4.5)
    assert math.isinf(second["s to 99.9 %"])
    assert first["evaluations/s"] == pytest.approx(10)
    told = " ".join(peers_table.notes(runs, 60.0))
    assert "toy: ahead of kvopt: random at 2 s (0.6250 against 0.2500)" in told
    assert "what random has after 30 s" in told


def test_runs_are_kept_and_what_is_not_installed_is_said(runs: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def launch(case):
        asked.append((case["method"], case["seed"], case["seconds"]))
        if case["method"] == "Sobol":
            return "out of luck"
        Path(case["file"]).write_text(json.dumps(runs[case["seed"] + 2 * (case["method"] == "kvopt")] | {"seconds": case["seconds"]}))
        return None

    monkeypatch.setattr(peers, "launch", launch)
    monkeypatch.setattr(peers, "_warm", lambda case: None)
    monkeypatch.setattr(peers, "PROBLEMS", {"toy": Toy})
    absent = peers_adapters.Method(peers_adapters.random, "", "no_such_package")
    monkeypatch.setattr(peers, "METHODS", {name: peers_adapters.METHODS[name] for name in ("random", "kvopt", "Sobol")} | {"absent": absent})
    result = peers.run(out=tmp_path, seeds=2, problems=None, planners=False)
    assert [row["method"] for row in result.rows] == ["kvopt", "random"]
    assert not result.ok
    assert any("absent: no_such_package is not installed" in note for note in result.notes)
    assert any("Sobol, seed 0: out of luck" in note for note in result.notes)
    assert (tmp_path / "peers.png").exists()
    assert len(asked) == 6
    asked.clear()
    again = peers.run(out=tmp_path, seeds=2, problems=None, planners=False, methods="random, kvopt")
    assert again.ok
    assert asked == []
    assert again.rows == result.rows
    with pytest.raises(BadInput):
        peers.run(problems=None, methods="randon")


def test_a_process_is_timed_from_its_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # where the other process finds this module
    monkeypatch.setattr(peers, "PROBLEMS", {"toy": Toy})
    peers.hand_over("toy", tmp_path)
    case = {"problem": "toy", "method": "random", "seed": 0, "seconds": 600.0, "after_first": 0.2}
    case |= {"pickle": str(tmp_path / "toy.pickle"), "file": str(tmp_path / "run.json")}
    assert peers.launch(case) is None
    found = json.loads((tmp_path / "run.json").read_text())
    assert 0.1 < found["first_s"] <= found["curve"][0][0] <= found["ended_s"] < 600
    assert found["reference"] == [1.0, 1.0]
    assert found["peak_mb"] > 10
    assert "nothing" in (peers.launch({**case, "method": "nothing"}) or "")


def test_labels_are_moved_apart_in_their_order(runs: list[dict]) -> None:
    found = apart({"a": 0.5, "b": 0.51, "c": 0.9, "d": 0.0, "e": 0.01}, 0.05)
    heights = sorted(found.values())
    assert min(np.diff(heights)) >= 0.05 - 1e-6
    assert sorted(found, key=found.__getitem__) == ["d", "e", "a", "b", "c"]
    assert [axes.get_title(loc="left") for axes in figure(runs).axes] == ["toy"]
