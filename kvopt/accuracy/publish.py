"""Fits the pooled model to a table of accuracies and writes what the catalog holds of it.

python -m kvopt.accuracy.publish studies/evidence/accuracy.csv kvopt/catalog/accuracy
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from kvopt.accuracy import posterior, spreads
from kvopt.accuracy.pooled import Pooled, fit
from kvopt.accuracy.reading import Reading, read
from kvopt.inputs.method import Dimension
from kvopt.validation.rows import Refusal, Row, read_table

FITTED: tuple[Dimension, ...] = ("token", "head", "layer", "rank", "bits")
"""Sparse prefill is missing: no measurement of its accuracy is at hand."""


def excluded(row: Row) -> str:
    """Why a row must not be fitted: what its table says of it; empty where nothing is said."""
    where = row.text("source_where")
    return row.text("excluded") or (where.partition("[exclude-from-fit:")[2].partition("]")[0].strip())


def readings(path: Path) -> list[Reading]:
    """The readings of a table that may be fitted."""
    found = []
    for row in read_table(path).rows:
        if excluded(row):
            continue
        try:
            one = read(row)
        except Refusal:
            continue
        if one.retained is not None:
            found.append(one)
    return found


def main(words: Sequence[str]) -> None:
    """Reads, fits and writes."""
    source, folder = Path(words[0]), Path(words[1])
    found = readings(source)
    models: dict[str, Pooled] = {}
    for dimension in FITTED:
        mine = [one for one in found if one.dimension == dimension]
        models[dimension] = fit(mine, spreads.estimate(mine, spreads.start(dimension)))
    about = {
        "source": f"{source.name}: {len(found)} published measurements, each with its source",
        "tag": "derived",
        "about": "spreads (standard deviations) of ln L at a quarter kept or 4 bits, of ln(slope) and of the midpoint ln k0, by what readings share",
    }
    posterior.write(folder, models, about)


if __name__ == "__main__":
    main(sys.argv[1:])
