"""Measurements published by others, condensed: what the profiles are fitted to and what the studies compare with, each row with its source.

`latency.csv` holds the columns that `kvopt validate latency` reads, `capacity.csv` those of `kvopt validate capacity`, `aiconfigurator.csv` what
aiconfigurator 0.12.0 (Apache-2.0) predicts for rows of `latency.csv`, `accuracy.csv` and `composition.csv` what compression was measured to keep, alone
and combined (columns of `kvopt validate accuracy` and `composition`). `trace_*.csv` are samples of public request traces, in the form that `kvopt simulate
--trace` reads, `trace_quantiles.csv` has their sources, licences and quantiles. `python -m studies.evidence.condense FOLDER` makes all of them from the
collected evidence.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from kvopt.validation.rows import Table, read_table

FOLDER = Path(str(resources.files(__name__)))
LATENCY, CAPACITY, AICONFIGURATOR = FOLDER / "latency.csv", FOLDER / "capacity.csv", FOLDER / "aiconfigurator.csv"
ACCURACY, COMPOSITION = FOLDER / "accuracy.csv", FOLDER / "composition.csv"
TRACE_NAMES = ("azure_2023_code", "azure_2023_conversation", "mooncake_conversation", "mooncake_synthetic")
TRACES = {name: FOLDER / f"trace_{name}.csv" for name in TRACE_NAMES}
TRACE_QUANTILES = FOLDER / "trace_quantiles.csv"


def table(path: Path) -> Table:
    """The rows of one of the files."""
    return read_table(path)
