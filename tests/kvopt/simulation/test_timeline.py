from itertools import pairwise

import pytest
import simpy

import kvopt
from kvopt.simulation import timeline
from kvopt.simulation.run import Simulation, Window
from kvopt.simulation.sessions import Session, Turn
from kvopt.simulation.timeline import MOST, ROWS, STATES, Timeline

LOADED = {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1, "context": 32_000, "users": 20, "warmup": 300.0}


@pytest.fixture(scope="module")
def simulated():
    return kvopt.simulate(**LOADED, duration=300.0).data


def total(rows, *states):
    return sum(end - start for row in rows for start, end, state in row["spans"] if state in states)


def assert_whole(rows):
    """No span upon another, all of them known, none empty."""
    for row in rows:
        assert all(start < end and state in STATES for start, end, state in row["spans"])
        assert all(first[1] <= then[0] and not (first[1] == then[0] and first[2] == then[2]) for first, then in pairwise(row["spans"]))


def test_spans_of_a_user_follow_each_other_without_a_gap(simulated):
    rows = simulated["timeline"]
    assert [row["user"] for row in rows] == list(range(20))
    assert_whole(rows)
    for row in rows:
        assert row["spans"][0][0] == 0.0
        assert all(first[1] == then[0] for first, then in pairwise(row["spans"]))
    assert len({row["spans"][-1][1] for row in rows}) == 1
    assert 20 <= sum(len(row["spans"]) for row in rows) <= MOST


def test_shares_of_the_states_agree_with_the_figures(simulated):
    rows, lasted = simulated["timeline"], simulated["timeline"][0]["spans"][-1][1]
    assert lasted > 200  # nearly the whole window, so that its figures are those of the spans
    assert total(rows, "decode") / lasted == pytest.approx(simulated["simulation"]["decodes_in_flight"], rel=0.05)
    asking = total(rows, "waiting", "prefill", "decode", "switch") / lasted
    figures = simulated["simulation"]
    assert asking == pytest.approx(figures["requests"] * figures["e2e_s"]["mean"] / figures["seconds"], rel=0.05)  # Little's law
    assert total(rows, *STATES) / lasted == pytest.approx(20)


def test_same_seed_same_spans(simulated):
    assert kvopt.simulate(**LOADED, duration=300.0).data["timeline"] == simulated["timeline"]


def test_states_of_one_session(make):
    turns = (Turn(32, 4, arrival_s=0.0), Turn(16, 3, arrival_s=100.0))
    simulation, _ = make.replay(make.group(), [Session(7, turns)])
    (row,) = simulation.timeline.rows()
    assert (row["user"], row["begins"]) == (7, [0.0])
    spans = [["prefill", 0, 10], ["decode", 10, 13], ["think-resident", 13, 100], ["prefill", 100, 110], ["decode", 110, 112]]
    assert [[state, start, end] for start, end, state in row["spans"]] == spans


def test_parked_caches_go_and_come_over_the_link(make):
    turns = (Turn(160, 1, arrival_s=0.0), Turn(16, 2, arrival_s=100.0))
    simulation, _ = make.replay(make.group(tokens=1000, stays=False, parks=True, link=16.0), [Session(0, turns)])
    (row,) = simulation.timeline.rows()
    assert [state for _, _, state in row["spans"]] == ["prefill", "switch", "think-parked", "switch", "prefill", "decode"]
    assert [end - start for start, end, state in row["spans"] if state == "switch"] == [10.0, 10.0]  # 160 bytes at 16 bytes/s


def test_dropped_and_evicted_caches(make):
    turns = (Turn(160, 1, arrival_s=0.0), Turn(16, 2, arrival_s=100.0))
    dropped, _ = make.replay(make.group(tokens=1000, stays=False), [Session(0, turns)])
    assert "think-dropped" in {state for _, _, state in dropped.timeline.rows()[0]["spans"]}
    other = Session(1, (Turn(1590, 1, arrival_s=50.0),))
    evicted, _ = make.replay(make.group(tokens=2000), [Session(0, turns), other])
    spans = evicted.timeline.rows()[0]["spans"]
    assert [state for _, _, state in spans][:3] == ["prefill", "think-resident", "think-dropped"]
    assert spans[1][1] == 50.0


def test_preempted_and_handed_over(make):
    simulation, figures = make.replay(make.group(pool=320, tokens=400, swaps=True), make.sessions((100, 100), (100, 100)))
    assert figures["preemptions"]
    rows = simulation.timeline.rows()
    assert_whole(rows)
    assert "switch" in {state for _, _, state in rows[1]["spans"]}
    apart, _ = make.replay(make.group(prefilling=1), make.sessions((32, 4)))
    assert [state for _, _, state in apart.timeline.rows()[0]["spans"]] == ["prefill", "switch", "decode"]


def test_window_rows_and_spans_are_bounded(make):
    def endless():
        number = 0
        while True:
            yield Session(number, (Turn(16, 2), Turn(16, 2, think_s=3.0)))
            number += 1

    def played(users, shown_s):
        simulation = Simulation(make.group(sequences=64), 0)
        simulation.users.closed(endless(), users, 5.0)
        simulation.measure(Window(50.0, seconds=4000.0), shown_s)
        return simulation.timeline.rows()

    assert max(row["spans"][-1][1] for row in played(3, 100.0)) == 100.0
    many = played(40, 1e9)
    assert len(many) == ROWS
    assert MOST - 2 * ROWS <= sum(len(row["spans"]) for row in many) <= MOST
    assert_whole(many)


def test_nothing_is_kept_before_it_is_opened():
    watched = Timeline(simpy.Environment(), lambda session: "resident")
    watched.begins(0)
    watched.note(0, timeline.DECODE)
    watched.ends(0)
    assert watched.rows() == []
