"""Groups made by hand: a token is a byte, a step of decodes takes a second, one with prompts ten."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from kvopt.simulation.engine import Limits
from kvopt.simulation.run import Setting, Simulation
from kvopt.simulation.sessions import Session, Turn
from kvopt.simulation.steps import Steps
from kvopt.simulation.users import Manners

BLOCKS = 200


def steps(**changes: Any) -> Steps:
    by_block = [16 * count for count in range(BLOCKS)]
    plain: dict[str, Any] = {
        "block": 16,
        **{name: list(by_block) for name in ("stored", "filling", "moved")},
        "kv_s": [0.0] * BLOCKS,
        "attention": [0.0] * BLOCKS,
        "bare_s": [1.0] * 100,
        "kv_slope": [1.0] * 100,
        "token_flop": 1.0,
        "prompt_flop": 0.0,
        "state": 0,
        "read_efficiency": 1.0,
        "mixed": lambda given: 10.0,
        "link": 16.0,
        "duplex": True,
        "exposed": 0.0,
        "append_only": True,
        "server_s": 0.0,
        "pool": 0.0,
        "host": 1e6,
    }
    return Steps(**{**plain, **changes})


def group(
    pool: int = 1600, tokens: int = 64, sequences: int = 8, swaps: bool = False, stays: bool = True, parks: bool = False, **changes: Any
) -> Setting:
    fields = {name: changes.pop(name) for name in ("decoding", "prefilling", "groups_per_gpu") if name in changes}
    made = steps(**changes)
    return Setting(made, Limits(tokens, sequences, True, swaps, parks), Manners("constant", stays, parks, made.server_s), pool, **fields)


def sessions(*lengths: tuple[int, int], apart_s: float = 0.0) -> list[Session]:
    """One session of one turn for each (prompt, answer)."""
    return [Session(number, (Turn(new, answer, arrival_s=number * apart_s),)) for number, (new, answer) in enumerate(lengths)]


def replay(setting: Setting, played: list[Session], seed: int = 0) -> tuple[Simulation, dict[str, Any]]:
    simulation = Simulation(setting, seed)
    return simulation, simulation.replay(played)


@pytest.fixture
def make() -> SimpleNamespace:
    """The makers above, for test files to call."""
    return SimpleNamespace(steps=steps, group=group, sessions=sessions, replay=replay, random=random.Random)
