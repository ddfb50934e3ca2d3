"""The scheduler on cases worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kvopt.simulation.sessions import Session, Turn


def test_one_request(make: SimpleNamespace) -> None:
    simulation, found = make.replay(make.group(), make.sessions((100, 5)))
    # two chunks of at most 64 tokens, the first token with the second, then four steps
    assert found["ttft_s"]["mean"] == 20
    assert found["e2e_s"]["mean"] == 24
    assert found["tpot_s"]["mean"] == 1
    assert found["utilisation"]["compute"] == 1
    assert simulation.decoders[0].pool.held == 0


def test_an_answer_of_one_token_comes_with_the_prompt(make: SimpleNamespace) -> None:
    _, found = make.replay(make.group(), make.sessions((10, 1)))
    assert found["e2e_s"]["mean"] == found["ttft_s"]["mean"] == 10
    assert found["tpot_s"]["mean"] is None


def test_prompts_share_a_step_up_to_its_budget(make: SimpleNamespace) -> None:
    simulation, _ = make.replay(make.group(tokens=64), make.sessions((30, 2), (30, 2), (30, 2)))
    first = sorted(request.first_s for request in simulation.finished)
    assert first == [10, 10, 20]  # 30 + 30 + 4 tokens, then 26 beside two decodes


def test_decodes_leave_less_of_the_budget(make: SimpleNamespace) -> None:
    simulation, _ = make.replay(make.group(tokens=20), make.sessions((10, 50), (10, 50), (36, 1)))
    # the third one finds 18 tokens a step beside two decodes
    assert simulation.finished[0].first_s == 30


def test_first_come_first_served_within_the_cap(make: SimpleNamespace) -> None:
    simulation, _ = make.replay(make.group(sequences=1), make.sessions((10, 3), (10, 3), apart_s=1.0))
    assert [request.first_s for request in simulation.finished] == [10, 22]


def test_a_prompt_waits_until_it_fits(make: SimpleNamespace) -> None:
    simulation, found = make.replay(make.group(pool=160), make.sessions((100, 5), (100, 5)))
    assert [request.admitted_s for request in simulation.finished] == [0, 24]
    assert found["preemptions"] == 0


def test_the_last_admitted_is_preempted_and_computed_again(make: SimpleNamespace) -> None:
    simulation, found = make.replay(make.group(pool=192, tokens=256), make.sessions((80, 40), (80, 40)))
    early, late = sorted(simulation.finished, key=lambda request: request.session)
    assert found["preemptions"] == late.preemptions == 1
    assert early.preemptions == 0
    assert early.finished_s == 10 + 39
    # 16 steps until both want a seventh block; then it waits until the first is through, and takes a step with a prompt
    assert late.finished_s == 10 + 39 + 10 + 22
    assert simulation.decoders[0].pool.held == 0


def test_what_is_left_of_a_preempted_cache_is_found_again(make: SimpleNamespace) -> None:
    simulation, _ = make.replay(make.group(pool=192, tokens=256), make.sessions((80, 40), (80, 40)))
    assert 0 < simulation.decoders[0].meter.cached <= 96


def test_swapping_goes_over_the_link(make: SimpleNamespace) -> None:
    simulation, found = make.replay(make.group(pool=192, tokens=256, swaps=True), make.sessions((80, 40), (80, 40)))
    assert found["preemptions"] == 1
    assert simulation.decoders[0].host.link_s > 0


def turns(*new_answer_think: tuple[int, int, float]) -> list[Session]:
    return [Session(0, tuple(Turn(*turn) for turn in new_answer_think))]


def test_a_cache_that_stays_is_not_computed_again(make: SimpleNamespace) -> None:
    simulation, _ = make.replay(make.group(), turns((64, 17, 0.0), (8, 1, 5.0)))
    # 80 tokens are there when the question comes: 9 are new, in one step
    assert simulation.decoders[0].meter.cached == 80
    assert simulation.finished[1].first_s - simulation.finished[1].arrival_s == 10


def test_a_dropped_cache_is_computed_again(make: SimpleNamespace) -> None:
    simulation, _ = make.replay(make.group(stays=False), turns((64, 17, 0.0), (8, 1, 5.0)))
    assert simulation.decoders[0].meter.cached == 0
    assert simulation.finished[1].first_s - simulation.finished[1].arrival_s == 20


def test_a_parked_cache_is_fetched(make: SimpleNamespace) -> None:
    simulation, found = make.replay(make.group(stays=False, parks=True), turns((64, 17, 0.0), (8, 1, 50.0)))
    assert simulation.decoders[0].host.busy_s == {"in": 5.0, "out": 5.0}  # 80 bytes at 16 a second, each way
    assert simulation.finished[1].first_s - simulation.finished[1].arrival_s == 5 + 10
    assert found["utilisation"]["link"] == pytest.approx(5 / found["seconds"])


def test_only_what_is_new_is_written_out(make: SimpleNamespace) -> None:
    simulation, _ = make.replay(make.group(stays=False, parks=True), turns((64, 17, 0.0), (15, 17, 50.0), (8, 1, 50.0)))
    assert simulation.decoders[0].host.busy_s == {"in": 5.0 + 7.0, "out": 5.0 + 2.0}


def test_an_idle_cache_makes_room(make: SimpleNamespace) -> None:
    played = [*turns((64, 17, 0.0), (8, 1, 100.0)), Session(1, (Turn(120, 8, arrival_s=40.0),))]
    simulation, _ = make.replay(make.group(pool=160), played)
    later = next(request for request in simulation.finished if request.turn == 1)
    assert simulation.decoders[0].meter.cached == 32  # of its five blocks the last three went
    assert later.first_s - later.arrival_s == 10


def test_a_session_that_never_fits_is_refused(make: SimpleNamespace) -> None:
    _, found = make.replay(make.group(pool=160), make.sessions((100, 5), (150, 50)))
    assert found["refused_sessions"] == 1
    assert found["requests"] == 1


def test_prefilled_elsewhere_and_handed_over(make: SimpleNamespace) -> None:
    _, found = make.replay(make.group(prefilling=1, decoding=1, tokens=256), make.sessions((64, 5)))
    # a step that prefills, 64 bytes over the link, then a step for each token
    assert found["e2e_s"]["mean"] == 10 + 4 + 4
    assert found["requests"] == 1


def test_the_server_adds_its_time(make: SimpleNamespace) -> None:
    _, found = make.replay(make.group(server_s=0.5), make.sessions((10, 2)))
    assert found["ttft_s"]["mean"] == 10.5
