"""What accelerators cost an hour and draw, as linear functions of their numbers, fitted to those of the catalog.

Prices of a market say little of what each number costs: cards that have more of one have more of all, and makers differ by a factor of two. A plain
non-negative fit then puts the whole price on the links and gives memory away. Where the data do not tell, every number is taken to have an equal share of a
median card's cost (`EVEN`); how far the fit is from the catalog, on cards fitted and on cards left out, is in the result. Tag: derived.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from scipy.optimize import nnls

from kvopt.catalog import ids
from kvopt.inputs.accelerator import read_accelerator
from objectives.codesign import QUANTITIES, LinearCost

Kind = Literal["price", "power"]
FIELDS: dict[Kind, str] = {"price": "price_per_hour", "power": "power"}
EVEN = 1.0  # weight of equal shares against one card; the error on cards left out is about the same from 0 to 100


@dataclass(frozen=True)
class CostFit:
    """A fitted cost. Errors are relative, 0.1 for 10 %."""

    kind: Kind
    model: LinearCost
    cards: tuple[str, ...]
    median_error: float
    p90_error: float
    left_out_median: float  # of each card, predicted from all others
    left_out_p90: float
    tag: str = "derived"


@cache
def fitted(kind: Kind) -> CostFit:
    """The price [USD/h] (`usd_per_h`) or board power [W] (`tdp_w`) of every accelerator of the catalog that has it and all numbers it is made of."""
    names, rows, values = [], [], []
    for id_ in ids("accelerators"):
        card = read_accelerator(id_).pytree()
        row, value = [float(getattr(card, name)) for name in QUANTITIES], float(getattr(card, FIELDS[kind]))
        if np.all(np.isfinite([*row, value])):
            names.append(id_)
            rows.append([1.0, *row])
            values.append(value)
    known, paid = np.array(rows), np.array(values)
    found = fit(known, paid)
    error = np.abs(known @ found / paid - 1)
    others = [np.delete(np.arange(len(paid)), place) for place in range(len(paid))]
    left_out = np.abs([known[place] @ fit(known[rest], paid[rest]) / paid[place] - 1 for place, rest in enumerate(others)])
    per_unit: Any = found[1:]
    return CostFit(
        kind=kind,
        model=LinearCost(base=np.float64(found[0]), per_unit=per_unit),
        cards=tuple(names),
        median_error=float(np.median(error)),
        p90_error=float(np.quantile(error, 0.9)),
        left_out_median=float(np.median(left_out)),
        left_out_p90=float(np.quantile(left_out, 0.9)),
    )


def fit(rows: np.ndarray, values: np.ndarray, even: float = EVEN) -> np.ndarray:
    """Non-negative coefficients `(numbers,)` of `rows` `(cards, numbers)` for the least squares of relative errors, drawn to equal shares of a median card."""
    unit = np.median(rows, axis=0)
    count = rows.shape[1]
    drawn = (np.eye(count) - 1 / count) * np.sqrt(even * len(values)) / np.median(values)
    return np.asarray(nnls(np.vstack([rows / unit / values[:, None], drawn]), np.append(np.ones(len(values)), np.zeros(count)))[0]) / unit
