"""What was measured of a compression method's accuracy: curves with their spread, their source, and the range that they cover."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kvopt.inputs.sourced import Tag

Task = Literal["perplexity", "knowledge", "gsm8k", "longbench", "ruler", "needle", "reasoning", "multi-needle"]
TASKS: tuple[Task, ...] = ("perplexity", "knowledge", "gsm8k", "longbench", "ruler", "needle", "reasoning", "multi-needle")
Question = Literal["seen", "hidden", "any"]
Coverage = Literal["interpolated", "extrapolated", "none"]
REFERENCE_CONTEXT = 8192  # [tokens] the context that amplitudes are stated at

SHIFTS: dict[str, dict[str, float]] = {
    "token": {"needle": -0.16, "ruler": -0.84, "longbench": -0.98},
    "head": {"needle": 0.7, "ruler": 0.0, "longbench": -0.98, "knowledge": -1.0},
    "layer": {"knowledge": 0.0, "perplexity": 0.0, "longbench": 0.5, "ruler": 1.2},
    "rank": {"knowledge": 0.0, "longbench": 0.5, "perplexity": 2.0, "ruler": 2.5},
    "bits": {
        "reasoning": 3.9, "multi-needle": 4.7, "needle": 2.2, "perplexity": 2.4, "ruler": 1.6, "gsm8k": 0.9, "longbench": -0.6, "knowledge": 0.4,
    },
    "prefill": {},
}  # fmt: skip
"""Task effects on ln L, by dimension: how a curve is borrowed by a task that its method was not measured on. Only differences matter.

token: one model of 1,169 rows, 23 methods and 8 task classes (kvpress, longctx_bench, QPruningKV, CircuitKV, CoKV). bits: 290 rows of careful
quantisers. layer: CommonKV at half, .93 on LongBench and .80 on RULER-32K. rank: Palu at half, .98 zero-shot and .78 on RULER-32K. head: needles
as for tokens, assumed.
A task without an entry borrows nothing.
"""
BORROWED_LOG_SD = 1.0  # added in quadrature where a curve is borrowed: about the spread of the task effects themselves (assumed)


class Frozen(BaseModel):
    """What a person or the catalog writes: no field unknown, none changed afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Fit(Frozen):
    """How one task family sits on its method's curve, and what the measurements cover."""

    log_amplitude: float = Field(description="effect of the task family on ln L, at the reference context")
    floor: float = Field(ge=0, lt=0.2, description="loss that is there as soon as anything is compressed")
    log_sd: float = Field(gt=0, le=3, description="spread of ln L: 90 % of the measured losses lie below L * exp(1.28 log_sd)")
    rows: int = Field(ge=0, description="measurements behind it; 0 where it is assumed")
    keep: tuple[float, float] | None = Field(None, description="range of the kept share (keep curves) or of the mean bits (bits curves) measured")
    context: tuple[float, float] | None = Field(None, description="range of context lengths measured [tokens]; absent: not stated")
    source: str | None = Field(None, description="where it is not the curve's own source")
    context_exponent: float = Field(0.0, description="effect of ln(context / 8192) on ln L")

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for name in ("keep", "context"):
            bounds = getattr(self, name)
            if bounds is not None and not 0 < bounds[0] <= bounds[1]:
                raise ValueError(f"{name}: must be [lowest, highest], both above 0")
        return self


class Curve(Frozen):
    """What keep curves and bits curves share."""

    question: Question = Field(description="whether the selection saw the question; any: it makes no difference")
    tasks: dict[Task, Fit]
    source: str = Field(min_length=3)
    tag: Tag

    def applies(self, question_hidden: bool) -> bool:
        """A selection that saw the question says nothing about one that does not; the other way round it is a safe stand-in."""
        return self.question != "seen" or not question_hidden


class KeepCurve(Curve):
    """Logistic in ln k: see `objectives.accuracy.proxies.KeepLoss`."""

    k0: float = Field(gt=0, le=100, description="midpoint of the logistic")
    slope: float = Field(gt=0, le=16)

    @property
    def weight(self) -> float:
        """k0^s / (1 + k0^s)."""
        return 1 / (1 + math.exp(-self.slope * math.log(self.k0)))


class BitsCurve(Curve):
    """Exponential in the bits: see `objectives.accuracy.proxies.BitsLoss`."""

    log_quantiser: float = Field(description="effect of the quantiser on ln L (FP8 is 0)")
    rate: float = Field(2.2, gt=0, le=3, description="fall of ln L per bit; 2.2 over 466 rows of careful quantisers")
    key_share: float = Field(ge=0, le=1, description="share of K in the loss at equal bits")


def borrow(curve: Curve, dimension: str, task: Task) -> Fit | None:
    """The curve's own fit for a task, or that of the task nearest to it, moved by the task effects and with 0 rows; None where neither exists."""
    if task in curve.tasks:
        return curve.tasks[task]
    shifts = SHIFTS[dimension]
    donors = [name for name in curve.tasks if name in shifts]
    if not donors or task not in shifts:
        return None
    donor = min(donors, key=lambda name: (abs(shifts[task] - shifts[name]), -curve.tasks[name].rows))
    fit = curve.tasks[donor]
    moved = fit.log_amplitude + shifts[task] - shifts[donor]
    return fit.model_copy(update={"log_amplitude": moved, "log_sd": math.hypot(fit.log_sd, BORROWED_LOG_SD), "rows": 0})
