"""The kinds of measurements that can be predicted, and one validation from file to result."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from kvopt.errors import BadInput
from kvopt.results import write_atomically
from kvopt.validation.errors import Deviation, by_group, errors
from kvopt.validation.outcome import Outcome
from kvopt.validation.rows import Row, Table, read_table

Predict = Callable[[Sequence[Row], float], list[Outcome]]
"""Predicts rows at a confidence: 0.5 the middle, 0.9 what a plan would quote. One outcome per row, in order."""
MIDDLE = 0.5


@dataclass(frozen=True)
class Kind:
    """One kind of measurement: the module under `kvopt.validation` that predicts it, imported when asked, and the columns it cannot do without."""

    module: str
    required: tuple[str, ...]
    quantities: tuple[str, ...]

    def load(self) -> tuple[Predict, Mapping[str, Deviation]]:
        """The function that predicts, and the quantities whose error is not relative."""
        module = import_module(f"kvopt.validation.{self.module}")
        return cast(Predict, module.predict), getattr(module, "DEVIATIONS", {})


KINDS = {
    "accuracy": Kind("accuracy", ("method", "dimension", "model", "benchmark"), ("retained",)),
    "capacity": Kind("capacity", ("engine", "model", "gpu", "kv_tokens"), ("kv_tokens", "max_concurrency_logged")),
    "composition": Kind("composition", ("combo", "retained_1", "retained_2"), ("retained_joint",)),
    "latency": Kind("latency", ("model", "gpu", "engine", "prompt_len"), ("prefill_s", "ttft_s", "tpot_ms", "e2e_s", "throughput_tok_s")),
}


@dataclass(frozen=True)
class Validation:
    """The outcome of every row of a file, and what follows from them."""

    kind: str
    file: str
    confidence: float
    table: Table
    outcomes: tuple[Outcome, ...]
    deviations: Mapping[str, Deviation]

    @property
    def data(self) -> dict[str, Any]:
        """The JSON object; its keys are what others rely on."""
        refused = [{"row": outcome.line, "why": outcome.why} for outcome in self.outcomes if outcome.refused]
        return {
            "kind": self.kind,
            "file": self.file,
            "confidence": self.confidence,
            "rows": len(self.outcomes),
            "predicted": len(self.outcomes) - len(refused),
            "refused": refused,
            "errors": errors(self.outcomes, self.deviations),
            "by_group": by_group(self.outcomes, self.deviations),
            "notes": [{"row": outcome.line, "note": note} for outcome in self.outcomes for note in outcome.notes],
        }

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(self.data, indent=2, allow_nan=False)

    def write_predictions(self, path: str | Path) -> None:
        """The file's own rows in order, with predicted_Q, lower_Q and upper_Q of each quantity Q; empty where refused. Raises `BadInput`."""
        if not _replaceable(Path(path)):
            raise BadInput("predictions", path, "is there and holds no predictions; name another file")
        names = [name for name in KINDS[self.kind].quantities if any(p.quantity == name for outcome in self.outcomes for p in outcome.predictions)]
        added = [f"{part}_{name}" for name in names for part in ("predicted", "lower", "upper")]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([*(column for column in self.table.columns if column not in added), *added])
        kept = [column for column in self.table.columns if column not in added]
        for row, outcome in zip(self.table.rows, self.outcomes, strict=True):
            found = {p.quantity: p for p in outcome.predictions}
            values = [_cell(getattr(found[name], part)) if name in found else "" for name in names for part in ("predicted", "lower", "upper")]
            writer.writerow([*(row.cells[column] for column in kept), *values])
        try:
            write_atomically(Path(path), out.getvalue())
        except OSError as error:
            raise BadInput("predictions", path, f"cannot be written ({error.strerror or error.__class__.__name__})") from None


def validate(kind: str, file: str | Path, confidence: float = MIDDLE) -> Validation:
    """Predicts every row of a file of measurements. Raises `BadInput` for an unknown kind, a file that is none, or an impossible confidence."""
    if kind not in KINDS:
        raise BadInput("kind", kind, f"not known; one of {', '.join(sorted(KINDS))}")
    if not 0 < confidence < 1:
        raise BadInput("confidence", confidence, "must be above 0 and below 1")
    table = read_table(file, KINDS[kind].required)
    predict, deviations = KINDS[kind].load()
    if not table.rows:
        raise BadInput("file", file, "has a header and no rows")
    outcomes = tuple(predict(table.rows, confidence))
    return Validation(kind, str(file), confidence, table, outcomes, deviations)


def _replaceable(path: Path) -> bool:
    """Whether a file can be written over: it is not there, empty, or of the like that is written."""
    if not path.exists():
        return True
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline()
    return not first.strip() or "predicted_" in first


def _cell(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.6g}"
