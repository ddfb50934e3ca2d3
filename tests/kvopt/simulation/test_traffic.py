"""What can be asked, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvopt.errors import BadInput
from kvopt.simulation.sessions import Draws, replayed
from kvopt.simulation.traffic import traffic


def test_options_as_people_write_them() -> None:
    asked = traffic(users="12", duration="10min", warmup=0, kv_tokens="41k")
    assert (asked.kind, asked.users, asked.duration_s, asked.warmup_s, asked.kv_tokens) == ("users", 12, 600.0, 0.0, 41000)
    assert traffic(rate=0.5).kind == "rate"
    assert traffic(trace="x.csv").kind == "trace"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"users": 0}, "users: 0: must be a number above zero"),
        ({"users": 1.5}, "users: 1.5: must be a whole number"),
        ({"rate": "nan"}, "rate: nan: must be a number above zero"),
        ({"users": 3, "rate": 2}, "rate: 2: not together with users"),
        ({"requests": 3, "duration": "2s"}, "duration: 2s: not together with requests"),
        ({"trace": "x.csv", "warmup": "2s"}, "warmup: 2s: a trace has its own times"),
        ({"thinking": "constnt"}, "did you mean constant?"),
        ({"user": 3}, "did you mean users?"),
    ],
)
def test_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said.replace("?", r"\?")):
        traffic(**asked)


def test_a_trace_keeps_its_times_and_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "chat.csv"
    path.write_text("session,arrival_s,prompt_tokens,answer_tokens\na,100,50,10\nb,101,30,0\na,130,75,5\n", encoding="utf-8")
    first, second = replayed(path)
    assert [(turn.new, turn.answer, turn.arrival_s) for turn in first.turns] == [(50, 10, 0.0), (15, 5, 30.0)]
    assert [(turn.new, turn.answer, turn.arrival_s) for turn in second.turns] == [(30, 1, 1.0)]
    assert [len(session.turns) for session in replayed(path, most=2)] == [1, 1]


def test_draws_meet_the_means(make: Any) -> None:
    from kvopt.inputs.scenario import Scenario
    from kvopt.problem import resolve

    sessions = resolve(Scenario.of(turns=2.25, context=1000, answer=20, followup=5)).sessions
    draws = Draws(sessions, 0.0, make.random(0))
    found = [next(draws) for _ in range(4000)]
    assert sum(len(session.turns) for session in found) / len(found) == pytest.approx(2.25, abs=0.03)
    assert found[0].turns[0].new == 1005
