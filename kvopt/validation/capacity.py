"""Start-up logs against predicted capacity: `kv_tokens` as the engine prints them, and the maximum concurrency of windowed and hybrid models.

Columns are those of `capacity_logs.csv`. What a log printed as a result (weights, activation peak, pool) is never used for its prediction.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvopt.capacity import constants
from kvopt.capacity.deployed import Held
from kvopt.capacity.deployment import GIB
from kvopt.capacity.logs import Logged, read
from kvopt.validation.outcome import Outcome, Prediction
from kvopt.validation.rows import Refusal, Row


def predict(rows: Sequence[Row], confidence: float) -> list[Outcome]:
    """One outcome per row. At a confidence above 0.5 the predicted value is what a plan would quote: the engine prints at least that with this confidence."""
    constants.load_all()  # a faulty catalog is no row's fault
    return [predict_row(row, confidence) for row in rows]


def predict_row(row: Row, confidence: float, generations: dict[str, constants.Generation] | None = None) -> Outcome:
    """One row; `generations` takes the place of the catalog's constants."""
    label = f"{row.text('model')}, {row.text('gpu')} x {row.text('tp')}"
    try:
        tokens, concurrency = row.positive("kv_tokens"), row.positive("max_concurrency_logged")
        logged = read(row, generations)
    except Refusal as refusal:
        return Outcome(row.line, refused=True, why=str(refusal), label=label)
    capacity = logged.capacity
    quoted = capacity.at(confidence)
    found = [_prediction("kv_tokens", tokens, quoted, logged)]
    if logged.several:
        found.append(_prediction("max_concurrency_logged", concurrency, quoted, logged))
    notes = (capacity.warning,) if capacity.warning else ()
    return Outcome(row.line, capacity.deployment.generation.id, tuple(found), why=_assumed(logged), notes=notes, label=label)


def _prediction(quantity: str, measured: float | None, quoted: Held, logged: Logged) -> Prediction:
    def value(held: Held) -> float:
        return float(held.tokens if quantity == "kv_tokens" else held.concurrency)

    return Prediction(quantity, measured, value(quoted), value(logged.capacity.lower), value(logged.capacity.upper))


def _assumed(logged: Logged) -> str:
    """What decides the pool and was not said, or that there is none."""
    row, ledger, deployment = logged.row, logged.capacity.ledger, logged.capacity.deployment
    if ledger.pool <= 0:
        return f"nothing is left for caches: weights {ledger.weights / GIB:.1f} GiB of {ledger.usable / GIB:.1f} GiB that the engine may use"
    if deployment.generation.rule != "profiled":
        return ""
    settings = {"max_num_seqs": deployment.max_sequences, "max_num_batched_tokens": deployment.chunk, "engine_version": deployment.generation.id}
    unsaid = [f"{name} {value}" for name, value in settings.items() if not row.text(name)]
    return f"assumed {', '.join(unsaid)}" if unsaid else ""
