"""Fitting the constants of `kvopt/catalog/capacity` to start-up logs, and checking them on sources that the fit has not seen.

    python -m kvopt.capacity.fit capacity_logs.csv            the errors with each source left out
    python -m kvopt.capacity.fit capacity_logs.csv --write    and the catalog's files rewritten

Maximum a posteriori: each constant starts from what it physically is (`PRIORS`), generations of one engine share a mean, and the logs pull: printed pools,
and printed activation peaks and non-torch memory. Logs are heavy-tailed, and a source counts as the square root of its rows.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from kvopt.capacity import constants
from kvopt.capacity.constants import Generation
from kvopt.capacity.deployed import of
from kvopt.capacity.deployment import GIB, Deployment
from kvopt.capacity.fit_spread import Residual, fit_spread, spread_values
from kvopt.capacity.logs import deployment_of
from kvopt.capacity.pool import ledger
from kvopt.errors import BadInput
from kvopt.validation.rows import Refusal, Row, read_table

Floats = NDArray[np.float64]
Values = dict[str, dict[str, float]]
"""Generation, then constant, then value."""


@dataclass(frozen=True)
class Prior:
    """A constant of several generations: what it is expected to be, how far its mean may lie from that and each generation from the mean (ln)."""

    field: str
    generations: tuple[str, ...]
    value: float
    log_sd: float
    within: float
    why: str


VLLM = ("vllm-early", "vllm-v0", "vllm-v1", "vllm-0.17", "vllm-0.21")
PRIORS = (
    Prior("sampler_bytes", VLLM[:3], 38, 0.1, 0.0, "14 bytes as below, and of the sort: values 4, 64-bit indices 8, workspace 12"),
    Prior("sampler_bytes", VLLM[3:], 14, 0.1, 0.0, "16-bit logits 2, their 32-bit copy 4, probabilities 4, noise 4"),
    Prior("sampler_base_gib", VLLM, 0.1, 0.5, 0.0, "small buffers of a step"),
    Prior("token_pass", VLLM, 1.0, 0.15, 0.0, "all of the widest layer's values, as two logs of one server show (vllm#10517)"),
    Prior("expert_scratch", VLLM[3:], 1.0, 0.2, 0.0, "both workspaces of the fused experts"),
    Prior("single_gib", VLLM[1:], 0.2, 0.5, 0.3, "libraries of one rank"),
    Prior("single_gib", VLLM[:1], 1.0, 0.5, 0.0, "libraries, and what the allocator reserves and does not use"),
    Prior("linked_gib", (*VLLM, "sglang"), 1.0, 0.7, 0.3, "NCCL and all-reduce buffers, about one GiB"),
    Prior("unlinked_gib", (*VLLM, "sglang"), 0.2, 0.7, 0.3, "NCCL over PCIe needs fewer channels"),
    Prior("node_gib", VLLM, 1.0, 0.7, 0.0, "network buffers, about as large as those of the links"),
    Prior("graphs_gib", VLLM[4:], 0.5, 0.7, 0.0, "half of what earlier versions print, which left unused shapes out later"),
    Prior("single_gib", ("sglang",), 0.25, 0.7, 0.0, "as vLLM"),
    Prior("context_gib", ("sglang",), 0.7, 0.4, 0.0, "CUDA context and the other programs of a card, 0.4 to 0.8 GiB in three logs"),
    Prior("sampler_bytes", ("trtllm",), 22, 0.4, 0.0, "decoder and logits buffers of two logs"),
    Prior("single_gib", ("trtllm",), 1.0, 0.4, 0.0, "context and engine buffers"),
)
POOL_SD_GIB, COMPONENT_SD_GIB, COMPONENT_SHARE = 0.3, 0.1, 0.1  # widths of what logs print


@dataclass(frozen=True)
class Observation:
    """One row's deployment, what its log printed, and how much it counts. All in GiB, None where not printed."""

    row: Row
    source: str
    deployment: Deployment
    weights: float | None
    pool: float | None
    activation: float | None
    non_torch: float | None
    weight: float = 1.0


def source_of(row: Row) -> str:
    """The repository and issue, pull request or file of a row: its `source` up to the first comma or parenthesis."""
    return re.split(r",|\(", row.text("source"))[0].strip()


def observations(rows: Iterable[Row]) -> list[Observation]:
    """The rows that can be read and that print something to fit to."""
    found = []
    for row in rows:
        try:
            deployment = deployment_of(row).with_defaults()
            capacity = of(deployment)
            tokens, pool = row.positive("kv_tokens"), row.number("kv_cache_gib_logged", low=-1e3)
        except (Refusal, BadInput):
            continue
        if tokens is not None and not capacity.layout.mixed:  # what the fullest rank holds; the printed pool may be another rank's
            pool = tokens * capacity.layout.block_bytes / capacity.layout.block_tokens / GIB
        parts = [row.number(f"{name}_gib_logged", low=-1e3) for name in ("weights", "activation_peak", "non_torch")]
        if pool is not None or any(part is not None for part in parts[1:]):
            found.append(Observation(row, source_of(row), deployment, parts[0], pool, parts[1], parts[2]))
    counts = Counter(observation.source for observation in found)
    return [replace(entry, weight=counts[entry.source] ** -0.25) for entry in found]


def fitted(rows: Sequence[Observation]) -> tuple[Values, dict[tuple[str, str], float]]:
    """The constants that the rows and the priors agree on, and the deviation of ln of each."""
    start, names = _start()
    result = least_squares(lambda point: _residuals(point, names, rows), start, max_nfev=60)
    covariance = np.linalg.pinv(result.jac.T @ result.jac)
    values = _values(result.x, names)
    deviations: dict[tuple[str, str], float] = {}
    for prior_index, prior in enumerate(PRIORS):
        for name in prior.generations:
            parts = [index for index, (owner, generation) in enumerate(names) if owner == prior_index and generation in ("", name)]
            deviations[name, prior.field] = float(np.sqrt(covariance[np.ix_(parts, parts)].sum()))
    return values, deviations


def _start() -> tuple[Floats, list[tuple[int, str]]]:
    """The prior means as logs, and what each coordinate is: a prior's mean, or one generation's distance from it."""
    names = [(index, "") for index in range(len(PRIORS))]
    names += [(index, name) for index, prior in enumerate(PRIORS) if prior.within for name in prior.generations]
    return np.array([math.log(PRIORS[index].value) if not name else 0.0 for index, name in names]), names


def _values(point: Floats, names: Sequence[tuple[int, str]]) -> Values:
    means = {index: value for (index, name), value in zip(names, point, strict=True) if not name}
    own = {key: value for key, value in zip(names, point, strict=True) if key[1]}
    values: Values = {}
    for index, prior in enumerate(PRIORS):
        for name in prior.generations:
            values.setdefault(name, {})[prior.field] = math.exp(means[index] + own.get((index, name), 0.0))
    return values


def generations(values: Values) -> dict[str, Generation]:
    """The catalog's generations with these constants."""
    return {entry.id: constants.with_values(entry, values.get(entry.id, {})) for entry in constants.load_all()}


def _residuals(point: Floats, names: Sequence[tuple[int, str]], rows: Sequence[Observation]) -> Floats:
    """Deviations from the priors, and from the logs: those heavy-tailed (Student t of one degree), so that a log that is far off pulls little."""
    tuned = generations(_values(point, names))
    centre, _ = _start()
    width = np.array([PRIORS[index].within if name else PRIORS[index].log_sd for index, name in names])
    seen, weight = [], []
    for row in rows:
        held = ledger(_tuned(row.deployment, tuned))
        if row.pool is not None:
            missed = (row.weights - held.weights / GIB) if row.weights is not None else 0.0  # the reserve is fitted, not the weights
            share = row.deployment.utilisation if row.deployment.generation.rule == "free" else 1.0
            seen.append((held.pool / GIB - share * missed - row.pool) / POOL_SD_GIB)
            weight.append(row.weight)
        for predicted, logged in ((held.activation / GIB, row.activation), (held.non_torch / GIB, row.non_torch)):
            if logged is not None and logged > 0:
                seen.append((predicted - logged) / (COMPONENT_SD_GIB + COMPONENT_SHARE * logged))
                weight.append(row.weight)
    off = np.array(seen)
    return np.concatenate([(point - centre) / width, np.array(weight) * np.sign(off) * np.sqrt(np.log1p(off**2))])


def _tuned(deployment: Deployment, tuned: dict[str, Generation]) -> Deployment:
    return replace(deployment, generation=tuned[deployment.generation.id])


def left_out(rows: Sequence[Observation]) -> dict[str, tuple[Values, list[Residual]]]:
    """For each source the constants of all others, and how far its own pools lie from them."""
    found = {}
    for source in dict.fromkeys(row.source for row in rows):
        values, _ = fitted([row for row in rows if row.source != source])
        found[source] = (values, residuals([row for row in rows if row.source == source], generations(values)))
    return found


def residuals(rows: Sequence[Observation], tuned: dict[str, Generation]) -> list[Residual]:
    """Printed less predicted pools of fully specified rows."""
    found = []
    for row in rows:
        if row.pool is not None and row.row.text("fully_specified").startswith("Y"):
            held = ledger(_tuned(row.deployment, tuned))
            error = row.pool - held.pool / GIB
            found.append(Residual(row.deployment.generation.id, row.source, error, held.reserve / GIB, held.weights / GIB))
    return found


def main(arguments: Sequence[str]) -> int:
    """Prints the errors with each source left out; with `--write` rewrites the catalog's files."""
    from kvopt.capacity.fit_report import left_out_outcomes, write_catalog
    from kvopt.validation.errors import errors

    table = read_table(arguments[0])
    rows = observations(table.rows)
    others = left_out(rows)
    stated = [row for row in table.rows if row.text("fully_specified").startswith("Y")]
    for confidence, outcomes in zip((0.5, 0.9), left_out_outcomes(stated, others, (0.5, 0.9)), strict=True):
        print(f"confidence {confidence}: {sum(not o.refused for o in outcomes)} of {len(outcomes)} rows predicted, each source left out")
        for quantity, found in errors(outcomes).items():
            print(f"  {quantity}: {', '.join(f'{name} {value:.3g}' for name, value in found.items() if value is not None)}")
    if "--write" in arguments:
        values, deviations = fitted(rows)
        spreads = fit_spread([residual for _, found in others.values() for residual in found])
        write_catalog(rows, values, deviations, {name: spread_values(spreads, name) for name in values})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
