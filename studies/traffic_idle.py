"""What idle KV caches cost: held in HBM, parked in host memory or computed again, gap by gap of a request trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from kvopt.inputs.traces import REPLY_S_PER_TOKEN
from kvopt.simulation.run import Setting
from kvopt.simulation.sessions import Session
from kvopt.simulation.steps import Part, Steps
from studies.traffic_replay import returning


@dataclass(frozen=True)
class Gap:
    """Between an answer and the next question: how long [s], what the cache holds by then, and what of it is new since the last gap [tokens]."""

    seconds: float
    context: int
    new: int


@dataclass(frozen=True)
class Costs:
    """Of each gap, `(gaps,)`: bytes times seconds if the cache stays, and GPU-seconds of a group for each fate."""

    byte_s: np.ndarray
    keep: np.ndarray
    park: np.ndarray | None  # None: the link to the host is not known
    recompute: np.ndarray

    @property
    def least(self) -> np.ndarray:
        """GPU-seconds of the cheapest fate, chosen gap by gap."""
        return np.min([fate for fate in (self.keep, self.park, self.recompute) if fate is not None], axis=0)


def gaps(sessions: Sequence[Session]) -> Iterator[Gap]:
    """Every gap; an answer takes `REPLY_S_PER_TOKEN` a token, as the trace says only when questions came."""
    for session in returning(sessions):
        context = held = 0
        for turn, later in zip(session.turns, session.turns[1:], strict=False):
            context += turn.new + turn.answer
            seconds = (later.arrival_s or 0.0) - (turn.arrival_s or 0.0) - REPLY_S_PER_TOKEN * turn.answer
            yield Gap(max(seconds, 0.0), context, context - held)
            held = context


def costs(setting: Setting, found: Sequence[Gap], parks: bool) -> Costs:
    """What every gap costs where memory is full: a byte held for the whole of the pool's price stands for its share of the GPU's time.

    Parking holds the cache while it is on the link and stalls the GPU as far as the link does; computing again takes the steps of a prefill alone.
    """
    steps, pool = setting.steps, float(setting.pool)
    size = np.array([steps.stored[steps.blocks(gap.context)] for gap in found], float)
    seconds = np.array([gap.seconds for gap in found])
    fetched = np.array([steps.moved[steps.blocks(gap.context)] for gap in found], float) / steps.link
    new = [gap.new if steps.append_only else gap.context for gap in found]
    written = np.array([steps.moved[steps.blocks(tokens)] for tokens in new], float) / steps.link
    again = np.array([recompute_s(steps, gap.context, setting.limits.tokens) for gap in found])
    on_link = (fetched + written) * size / pool + steps.exposed * fetched
    return Costs(size * seconds, size * seconds / pool, on_link if parks else None, again)


def recompute_s(steps: Steps, tokens: int, chunk: int) -> float:
    """[s] a group takes to prefill so many tokens alone, `chunk` a step."""
    starts = range(0, tokens, chunk)
    with jax.enable_x64(True):  # steps are timed in double precision
        return sum(steps.seconds(0, 0.0, [Part(start, min(chunk, tokens - start), start + chunk >= tokens)]) for start in starts)


def break_even_s(setting: Setting, tokens: int, parks: bool) -> dict[str, float]:
    """[s] from which on another fate is cheaper than holding a context of so many tokens in HBM: `park` and `recompute`."""
    one = costs(setting, [Gap(1.0, tokens, tokens)], parks)
    rate = float(one.keep[0])
    found = {"recompute": float(one.recompute[0]) / rate}
    return ({"park": float(one.park[0]) / rate} | found) if one.park is not None else found
