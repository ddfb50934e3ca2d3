"""Latency rows: prefill, time to first token, time per output token, end to end and throughput, by the catalog's fitted profiles.

Columns of a measurements file: model, gpu, engine, version, weight_dtype, kv_dtype, num_gpus, tp, prompt_len, output_len, batch, and what was measured;
`kvopt.calibration.measurement` says how a row is read, `objectives.serving.benchmark` what a benchmark reads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from kvopt.calibration.cases import READ, cache_bytes, log_times, stack, throughput
from kvopt.calibration.measurement import Measurement, read
from kvopt.errors import BadInput
from kvopt.inputs import profile
from kvopt.inputs.hierarchy import PARAMETERS
from kvopt.inputs.profile import Fitted, Profile
from kvopt.validation.outcome import Outcome, Prediction
from kvopt.validation.rows import Row
from objectives.serving import benchmark
from objectives.serving.group import weight_bytes

HOST_COPY = 0.85  # share of the nominal link that a pinned copy reaches (H20, PCIe 5: 54.5 of 64 GB/s, flat from 0.1 to 6.4 GB)
COPY_LATENCY_S = 20e-6  # of such a copy, the same rows
COPY_LOG_SD = 0.1  # assumed: one machine was measured


def predict(rows: Sequence[Row], confidence: float, fit: Fitted | None = None) -> list[Outcome]:
    """One outcome per row, in order. At `confidence` 0.5 the middle of the prediction; above it the value that a plan would quote: times longer, rates lower.

    `fit`: profiles other than the catalog's, for folds of a fit.
    """
    outcomes: dict[int, Outcome] = {}
    found: list[Measurement] = []
    for row in rows:
        try:
            one = read(row.cells, row.line)
        except BadInput as error:
            outcomes[row.line] = Outcome(row.line, refused=True, why=str(error))
            continue
        if one.experiment == "transfer":
            outcomes[row.line] = _transfer(one, confidence)
        else:
            found.append(one)
    if found:
        for one, outcome in zip(found, _predicted(found, confidence, fit or profile.fitted()), strict=True):
            outcomes[one.line] = outcome
    return [outcomes[row.line] for row in rows]


def _predicted(found: Sequence[Measurement], confidence: float, fit: Fitted) -> list[Outcome]:
    profiles = [profile.closest(one.accelerator, one.engine, one.weights, one.model.id, one.model.routed, fit) for one in found]
    parameters = {name: np.array([own.figures[name].value for own in profiles]) for name in PARAMETERS}
    logs = log_times(stack(found), parameters)
    outcomes = []
    for place, (one, own) in enumerate(zip(found, profiles, strict=True)):
        seconds = {name: math.exp(values[place]) for name, values in logs.items()}
        predictions = tuple(
            _prediction(one, quantity, value, seconds, fit.spread, own.evidence, confidence) for quantity, value in one.measured.items()
        )
        outcomes.append(Outcome(one.line, group_name(one), predictions, notes=_notes(one, own), label=label(one)))
    return outcomes


def _prediction(
    one: Measurement,
    quantity: str,
    value: float,
    seconds: dict[str, float],
    spread: dict[str, dict[str, profile.Pair]],
    evidence: str,
    confidence: float,
) -> Prediction:
    if quantity == "throughput_tok_s":
        middle = throughput(one, seconds)
        like = {"batch": "e2e_s", "closed loop": "tpot_ms"}.get(one.experiment, quantity)
        lower, upper = spread[like][evidence]
        lower, upper = (-upper, -lower) if like != quantity else (lower, upper)
        direction = -1
    else:
        reading = READ.get((one.experiment, quantity)) or {"e2e_s": "batch_s"}.get(quantity) or "decode_s"
        middle = seconds[reading] * (1e3 if quantity == "tpot_ms" else 1.0)
        if one.experiment == "closed loop" and quantity == "e2e_s":
            middle = seconds["ttft_s"] + one.output * seconds["tpot_s"]
        lower, upper = spread[quantity][evidence]
        direction = 1
    z = NormalDist().inv_cdf(confidence) / profile.ONE_SIDED
    quoted = middle * math.exp(z * (upper if direction > 0 else -lower) * direction)
    return Prediction(quantity, value, quoted, middle * math.exp(lower), middle * math.exp(upper))


def _transfer(one: Measurement, confidence: float) -> Outcome:
    """A copy between host and accelerator of the cache of a prompt."""
    if "transfer" not in one.engine and "copy" not in one.engine and "lmcache" not in one.engine:
        return Outcome(one.line, refused=True, why="kind: a transfer over a network, whose link no accelerator file names")
    size = cache_bytes(one)
    link = float(one.accelerator.pytree().host_bandwidth)
    if math.isnan(link):
        return Outcome(one.line, refused=True, why=f"gpu: the host link of {one.accelerator.id} is not known")
    seconds = COPY_LATENCY_S + size / (HOST_COPY * link)
    width = COPY_LOG_SD * profile.ONE_SIDED
    z = NormalDist().inv_cdf(confidence) * COPY_LOG_SD
    middle = {"e2e_s": (seconds, 1), "throughput_tok_s": (size / seconds / 1e9, -1)}  # the source counts GB/s there
    predictions = tuple(
        Prediction(
            name, value, middle[name][0] * math.exp(z * middle[name][1]), middle[name][0] * math.exp(-width), middle[name][0] * math.exp(width)
        )
        for name, value in one.measured.items()
        if name in middle
    )
    return Outcome(one.line, "host copies", predictions, label=label(one))


def group_name(one: Measurement) -> str:
    """What rows are reported together: accelerator, engine generation, weights, dense or routed, maximum load apart."""
    parts = [one.accelerator.id, one.engine, one.weights, "MoE" if one.model.routed else "dense"]
    return " ".join([*parts, *(["max load"] if one.experiment == "max load" else [])])


def label(one: Measurement) -> str:
    """What a person would call the row."""
    prompt = f"{one.cached:g}+{one.new:g}" if one.cached else f"{one.new:g}"
    return f"{one.model.id} on {one.gpus:g} {one.accelerator.id}, {one.engine} {one.weights}, {prompt} in {one.output:g} out, batch {one.batch:g}"


def _notes(one: Measurement, own: Profile) -> tuple[str, ...]:
    found = []
    if own.evidence == "none":
        found.append("nothing of this accelerator, engine and weight format was fitted: values of its class")
    if float(weight_bytes(one.model.architecture(), one.model.checkpoint(one.weights))) > one.gpus * one.accelerator.memory.value:
        found.append("the weights do not fit in this memory")
    if one.batch > benchmark.MOST_SEQUENCES:
        found.append("more requests at once than any that was fitted")
    return tuple(found)
