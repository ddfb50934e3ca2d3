"""Makes the committed samples and quantiles of request traces from the public ones: `python -m studies.evidence.condense` calls it.

A sample holds all sessions that begin before the first `REQUESTS` requests are reached, with all their later turns, in the form that `kvopt simulate --trace`
reads: real gaps between requests and between turns. Quantiles are of the whole traces. What is shared between sessions is left out. Mooncake's conversation
trace tells time in ticks of 3 s: requests of one tick are spread evenly over it, lest ten and more begin at once.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from kvopt.inputs.traces import REPLY_S_PER_TOKEN, Request, Session, read_sessions
from studies.evidence import TRACE_QUANTILES, TRACES

REQUESTS = 1000  # of one sample, later turns included
SHARES = np.concatenate([np.arange(0, 100, 2.5), [99, 99.5, 100]])  # [%] at which quantiles are kept
SAMPLE_COLUMNS = ("session", "arrival_s", "prompt_tokens", "answer_tokens")
PERCENTS = tuple(f"p{share:g}" for share in SHARES)
QUANTILE_COLUMNS = ("trace", "quantity", "count", "mean", *PERCENTS, "source")


@dataclass(frozen=True)
class Trace:
    """A public trace: its file in the folder of traces, where it is from, and under which licence."""

    file: str
    source: str
    tick_s: float = 0.0  # that its times are whole multiples of


SOURCES = {
    "azure_2023_code": Trace(
        "azure_2023_code.csv",
        "Azure/AzurePublicDataset@b469a11 data/AzureLLMInferenceTrace_code.csv, CC-BY 4.0 (Patel et al., Splitwise, ISCA 2024)",
    ),
    "azure_2023_conversation": Trace(
        "azure_2023_conv.csv",
        "Azure/AzurePublicDataset@b469a11 data/AzureLLMInferenceTrace_conv.csv, CC-BY 4.0 (Patel et al., Splitwise, ISCA 2024)",
    ),
    "mooncake_conversation": Trace(
        "mooncake_fast25_conversation_first11500.jsonl",
        "kvcache-ai/Mooncake@3b5a594 FAST25-release/traces/conversation_trace.jsonl, its first 11,500 lines, Apache-2.0 (Qin et al., FAST 2025)",
        3.0,
    ),
    "mooncake_synthetic": Trace(
        "mooncake_fast25_synthetic.jsonl",
        "kvcache-ai/Mooncake@3b5a594 FAST25-release/traces/synthetic_trace.jsonl, Apache-2.0 (Qin et al., FAST 2025)",
    ),
}
"""By the name that the study `traffic` uses."""


def condense_traces(folder: Path) -> None:
    """Writes the samples and the table of quantiles from the folder of public traces."""
    rows: list[tuple[object, ...]] = []
    for name, trace in SOURCES.items():
        sessions = spread(read_sessions(folder / trace.file), trace.tick_s)
        _write(TRACES[name], SAMPLE_COLUMNS, sample(sessions))
        rows += [(name, *row, trace.source) for row in quantiles(sessions)]
    _write(TRACE_QUANTILES, QUANTILE_COLUMNS, rows)


def spread(sessions: Sequence[Session], tick_s: float) -> list[Session]:
    """The sessions with the requests of one tick spread evenly over it, in their order."""
    if not tick_s:
        return list(sessions)
    together = Counter(one.arrival_s for session in sessions for one in session.requests)
    seen: Counter[float] = Counter()

    def moved(request: Request) -> Request:
        place, seen[request.arrival_s] = seen[request.arrival_s], seen[request.arrival_s] + 1
        return Request(request.arrival_s + tick_s * place / together[request.arrival_s], request.prompt, request.answer)

    return [Session([moved(one) for one in session.requests], session.shared_prefix) for session in sessions]


def sample(sessions: Sequence[Session], most: int = REQUESTS) -> list[tuple[int, str, int, int]]:
    """Rows of the sessions that begin first, as long as they hold `most` requests together; times [s] count from the first arrival."""
    ordered = sorted(sessions, key=lambda one: one.requests[0].arrival_s)
    start = ordered[0].requests[0].arrival_s
    rows: list[tuple[int, str, int, int]] = []
    for number, session in enumerate(ordered):
        if len(rows) + len(session.requests) > most:
            break
        rows += [(number, f"{one.arrival_s - start:.2f}", round(one.prompt), round(one.answer)) for one in session.requests]
    return sorted(rows, key=lambda row: float(row[1]))


def quantities(sessions: Sequence[Session]) -> Iterator[tuple[str, np.ndarray]]:
    """Name and values of everything whose quantiles are kept. `gap_s`: between an answer, at the assumed pace of a reply, and the next question."""
    requests = [one for session in sessions for one in session.requests]
    later = [pair for session in sessions for pair in pairwise(session.requests)]
    yield "arrival_gap_s", np.diff(np.sort([one.arrival_s for one in requests]))
    yield "prompt_tokens", np.array([one.prompt for one in requests])
    yield "answer_tokens", np.array([one.answer for one in requests])
    yield "turns", np.array([len(session.requests) for session in sessions], float)
    yield "gap_s", np.array([max(after.arrival_s - before.arrival_s - REPLY_S_PER_TOKEN * before.answer, 0.0) for before, after in later])
    yield "context_before_gap_tokens", np.array([before.prompt + before.answer for before, _ in later])


def quantiles(sessions: Sequence[Session]) -> Iterator[tuple[str, int, str, *tuple[str, ...]]]:
    """Rows (quantity, count, mean, value at each of `SHARES`); none of a quantity that the trace has no values of."""
    for name, values in quantities(sessions):
        if len(values):
            yield name, len(values), f"{values.mean():.6g}", *(f"{value:.5g}" for value in np.percentile(values, SHARES))


def _write(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
