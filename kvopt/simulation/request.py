"""One request on its way through the engine."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import simpy

Fate = Literal["stay", "park", "drop", "end"]


@dataclass(eq=False, slots=True)
class Request:
    """A question with the context before it; times in s of the simulation's clock, lengths in tokens."""

    session: int
    turn: int
    share: float  # of its session: 1 / turns
    arrival_s: float
    length: int  # tokens to compute before the next one comes out: context, question, and after a preemption what was answered
    answer: int
    shared: int  # of the prompt, found in the cache of shared prefixes
    fate: Fate  # of its cache once it is answered
    done: simpy.Event
    delivered: bool = False  # its prompt was prefilled elsewhere
    prompt: int = field(init=False)
    admitted_s: float = math.nan
    first_s: float = math.nan
    finished_s: float = math.nan
    preemptions: int = 0
    computed: int = 0
    generated: int = 0
    decoding: bool = False
    order: int = 0  # of admission
    blocks: int = 0
    bytes: int = 0
    offset: int = 0  # bytes beside those of its blocks
    kv_s: float = 0.0
    entered: int = 0  # step at which it began to decode
    due: int = 0  # step that needs its next block
    ends: int = 0  # step at which its answer is complete

    def __post_init__(self) -> None:
        self.prompt = self.length
