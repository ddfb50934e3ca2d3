"""The study `traffic`: the committed samples against the public traces, attainment over load, and what idle caches cost by hand."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kvopt.errors import BadInput
from kvopt.inputs.scenario import Scenario
from kvopt.inputs.traces import read_sessions
from kvopt.problem import resolve
from kvopt.simulation.run import Setting
from kvopt.simulation.sessions import Session, Turn
from studies import traffic
from studies.evidence import TRACE_QUANTILES, TRACES
from studies.evidence.condense_traces import QUANTILE_COLUMNS, REQUESTS, SAMPLE_COLUMNS, SOURCES, quantiles, sample, spread
from studies.traffic_idle import Gap, break_even_s, costs, gaps
from studies.traffic_notes import crossing
from studies.traffic_replay import PARK, Slo, paced, replay, settings

PUBLIC = next((folder for folder in (up / "shared" / "data" / "traces" for up in Path(__file__).resolve().parents) if folder.is_dir()), None)
MULTI = "mooncake_conversation"


@pytest.fixture(scope="module")
def parks() -> Setting:
    problem = resolve(Scenario.of(**traffic.DEFAULT))
    found = settings(problem, traffic.sample(MULTI).sessions)
    assert set(found) == {"keep", "park", "drop"}
    return found[PARK]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[traffic.StudyResult, Path]:
    out = tmp_path_factory.mktemp("traffic")
    return traffic.run(out=out, traces=["azure_2023_conversation", MULTI], loads=[40, 100, 300], fates="keep,park"), out


@pytest.mark.skipif(PUBLIC is None, reason="the public traces are not beside the repository")
@pytest.mark.parametrize("name", TRACES)
def test_the_committed_table_is_of_the_public_trace(name: str) -> None:
    assert PUBLIC is not None
    sessions = spread(read_sessions(PUBLIC / SOURCES[name].file), SOURCES[name].tick_s)
    with TRACES[name].open(newline="", encoding="utf-8") as file:
        committed = list(csv.reader(file))
    assert [tuple(row) for row in committed] == [SAMPLE_COLUMNS, *(tuple(map(str, row)) for row in sample(sessions))]
    with TRACE_QUANTILES.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row[0] == name]
    assert rows == [[name, *map(str, row), SOURCES[name].source] for row in quantiles(sessions)]


def test_samples_are_small_and_whole() -> None:
    assert sum(path.stat().st_size for path in (*TRACES.values(), TRACE_QUANTILES)) < 200_000
    with TRACE_QUANTILES.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        values = [float(row[column]) for column in QUANTILE_COLUMNS if column.startswith("p")]
        assert values == sorted(values)
        assert "CC-BY 4.0" in row["source"] or "Apache-2.0" in row["source"]
    assert {row["trace"] for row in rows} == set(TRACES)
    for name in TRACES:
        sessions = traffic.sample(name).sessions
        assert 0.9 * REQUESTS < sum(len(session.turns) for session in sessions) <= REQUESTS
        assert bool(len(traffic.sample(name).gap_quantiles[0])) == name.startswith("mooncake")


def test_attainment_falls_with_load(made: tuple[traffic.StudyResult, Path]) -> None:
    result, out = made
    assert (out / "traffic.png").stat().st_size > 0
    assert (out / "idle.csv").read_text().count("\n") == 2  # the header, and the one trace in which people come back
    for name, fate in (("azure_2023_conversation", "keep"), (MULTI, "keep"), (MULTI, PARK)):
        curve = [row for row in result.rows if (row["trace"], row["idle"]) == (name, fate)]
        met, waits, users = ([row[column] for row in curve] for column in ("attained %", "TTFT p95 s", "users"))
        assert met == sorted(met, reverse=True)
        assert met[0] > 90 > 60 > met[-1]
        assert waits == sorted(waits)
        assert users == sorted(users)
        for row in curve:
            assert row["TTFT p50 s"] <= row["TTFT p90 s"] <= row["TTFT p95 s"] <= row["TTFT p99 s"]
    parked, kept = (
        next(row for row in result.rows if row["trace"] == MULTI and row["idle"] == fate and row["load %"] == 100) for fate in (PARK, "keep")
    )
    assert parked["attained %"] > kept["attained %"]


def test_sessions_move_and_their_gaps_stay() -> None:
    session = Session(1, (Turn(10, 5, arrival_s=50.0), Turn(3, 5, arrival_s=80.0)))
    first = Session(0, (Turn(10, 5, arrival_s=0.0),))
    moved = paced([first, session], requests_per_s=0.3)  # three requests in 10 s
    assert [turn.arrival_s for one in moved for turn in one.turns] == pytest.approx([0.0, 10.0, 40.0])


def test_every_request_meets_endless_targets_and_none_impossible_ones(parks: Setting) -> None:
    few = traffic.sample(MULTI).sessions[:60]
    assert replay(parks, few, 0.5, Slo(1e9, 0.0, 1e9), 0).attained == 1
    assert replay(parks, few, 0.5, Slo(1e-9, 0.0, 1e9), 0).attained == 0
    tight = replace(parks, pool=parks.pool // 100)  # long sessions can never be held: they count as missed
    assert 0 < replay(tight, few, 0.1, Slo(1e9, 0.0, 1e9), 0).attained < 1


def test_idle_caches_by_hand(parks: Setting) -> None:
    tokens, seconds = 16_000, 100.0
    size = tokens * 131_072  # [bytes] of Llama-3.1-8B in 16 bit
    each = costs(parks, [Gap(seconds, tokens, tokens)], parks=True)
    assert each.byte_s[0] == pytest.approx(size * seconds)
    assert each.keep[0] == pytest.approx(size * seconds / parks.pool)
    assert each.park is not None
    assert each.park[0] == pytest.approx(2 * size / parks.steps.link * (size / parks.pool + parks.steps.exposed / 2))
    flop = 2 * 7.5e9 * tokens
    assert 0.3 < flop / 989e12 / each.recompute[0] < 1  # between a third of the peak and the peak
    assert each.least[0] == min(each.keep[0], each.park[0], each.recompute[0])
    even = break_even_s(parks, tokens, parks=True)
    for fate, spent in (("recompute", each.recompute[0]), ("park", each.park[0])):
        assert even[fate] * each.keep[0] / seconds == pytest.approx(spent)
    assert costs(parks, [Gap(seconds, tokens, tokens)], parks=False).park is None


def test_gaps_are_what_is_left_after_the_answer() -> None:
    session = Session(0, (Turn(1000, 100, arrival_s=0.0), Turn(50, 20, arrival_s=65.0), Turn(30, 10, arrival_s=65.5)))
    assert list(gaps([session, Session(1, (Turn(9, 9, arrival_s=0.0),))])) == [Gap(60.0, 1100, 1100), Gap(0.0, 1170, 70)]


def test_where_a_share_is_first_missed() -> None:
    curve = [{"attained %": met, "users": users, "requests/s": users / 10} for met, users in ((100, 10.0), (98, 20.0), (90, 40.0))]
    assert crossing(curve, 94.0) == pytest.approx((30.0, 3.0, False))
    assert crossing(curve, 90.0) == (40.0, 4.0, True)
    assert crossing(curve[2:], 95.0) is None


def test_a_trace_of_ones_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["session,arrival_s,prompt_tokens,answer_tokens"]
    lines += [f"{number},{2 * number + 1},{rng.integers(100, 2000)},{rng.integers(5, 50)}" for number in range(40)]
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(lines) + "\n")
    result = traffic.run(trace=str(path), requests=30, loads=50)
    assert [(row["trace"], row["load %"]) for row in result.rows] == [("mine", 50)]
    assert any("30 sessions, 30 requests" in note for note in result.notes)
    path.write_text("\n".join(lines[:2]) + "\n")
    with pytest.raises(BadInput, match="two times or more"):
        traffic.run(trace=str(path))


def test_wrong_options() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"loads": "0,50"}, "loads"),
        ({"loads": "x"}, "loads"),
        ({"fates": "sell"}, "fates"),
        ({"traces": ["azure"]}, "traces"),
        ({"requests": 1}, "requests"),
        ({"turns": 3}, "option"),
        ({"tpot": "fast"}, "tpot"),
        ({"trace": "/no/such/file.csv"}, "workload"),
    ]
    for options, field in wrong:
        with pytest.raises(BadInput) as caught:
            traffic.run(**options)
        assert caught.value.field == field
