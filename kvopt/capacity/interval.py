"""How far the printed pool may lie from the predicted one: heavy tails, longer towards small pools, since what nobody listed always costs memory."""

from __future__ import annotations

from math import hypot

from scipy.special import stdtrit

from kvopt.capacity.constants import Spread
from kvopt.capacity.deployment import GIB
from kvopt.capacity.pool import Ledger


def scale(spread: Spread, found: Ledger) -> float:
    """[bytes] the spread of the pool on one rank."""
    reserve, weights = spread.share_of_reserve.value * found.reserve, spread.share_of_weights.value * found.weights
    return hypot(spread.base_gib.value * GIB, reserve, weights)


def pool_quantile(spread: Spread, found: Ledger, probability: float) -> float:
    """[bytes] that the pool stays below with this probability; 0.5 is the prediction itself."""
    deviation = float(stdtrit(spread.dof.value, probability))
    side = spread.low if probability < 0.5 else spread.high
    return found.pool + deviation * side.value * scale(spread, found)
