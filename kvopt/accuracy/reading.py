"""One published accuracy of one compressed model, as the pooled model takes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from kvopt.accuracy import benchmarks, labels
from kvopt.inputs.evidence import REFERENCE_CONTEXT, Task
from kvopt.inputs.method import Dimension
from kvopt.validation.rows import Refusal, Row

Question = Literal["seen", "hidden"]
SCORED = frozenset({"scored", "head-budgets"})
"""Pools whose selection follows what the question attends to: seen and hidden are two methods. All others do not look at it."""
FULL_SCALE = 100.0
MOST_RETAINED = 1.15  # a run above its baseline says that nothing was lost and how noisy the benchmark is, not that compression helps


@dataclass(frozen=True)
class Reading:
    """What was compressed how far, what it was measured on, and what it kept."""

    method: str  # catalog id, or the label of a method that the catalog does not have
    pool: str  # kind of method; "dimension?" where it is unknown
    dimension: Dimension
    question: Question
    model: str  # without the remarks and endings that do not change the cache
    benchmark: str
    task: Task
    suite: str
    average: bool
    source: str  # who ran it: a harness of its own
    context: float  # [tokens]
    key: float  # kept share, or bits of K
    value: float  # the same, or bits of V
    retained: float | None  # score / baseline; perplexity: baseline / score

    @property
    def maker(self) -> str:
        """The model's family with its version: llama-3.1, qwen2.5, mistral."""
        found = re.match(r"[a-z]+-?\d*(?:\.\d+)?", self.model)
        return found.group(0).rstrip("-") if found else self.model

    @property
    def selection(self) -> str:
        """The method, twice where it matters whether it saw the question."""
        return f"{self.method}, question {self.question}" if self.pool in SCORED else self.method

    @property
    def kind(self) -> str:
        """The pool, twice where it matters whether it saw the question."""
        return f"{self.pool}, question {self.question}" if self.pool in SCORED else self.pool

    @property
    def noise(self) -> str:
        """How much a repeated run differs: averages little, single needles much."""
        return noise_kind(self.task, self.average)

    @property
    def series(self) -> tuple[str, str, str]:
        """Method, model and benchmark: points that were measured together."""
        return self.selection, self.model, self.benchmark


def noise_kind(task: Task, average: bool) -> str:
    """Benchmarks by how much a repeated run differs: average, needle, task (of a long-context suite), exam."""
    return "average" if average else "needle" if task == "needle" else "task" if task in ("longbench", "ruler") else "exam"


def model_key(name: str) -> str:
    """A model's name without owner, remarks, and the endings of its tuning: `meta-llama/Llama-3.1-8B-Instruct (FP8 weights)` is llama-3.1-8b."""
    text = re.sub(r"\([^)]*\)", " ", name.lower()).strip().split("/")[-1].strip()
    text = re.sub(r"^meta-", "", text)
    while True:
        shorter = re.sub(r"-(?:instruct|chat|base|hf|it|thinking|awq|gptq|fp8|32k)(?=-|$)", "", text)
        if shorter == text:
            return re.sub(r"\s+", " ", text) or "unknown"
        text = shorter


def read(row: Row) -> Reading:
    """A row with the columns of a table of accuracies. Raises `Refusal` with the column, its value and what is allowed."""
    written = row.need("dimension").lower()
    dimension = labels.DIMENSION_NAMES.get(written)
    if dimension is None:
        raise Refusal(f"dimension: {written}: must be one of {', '.join(dict.fromkeys(labels.DIMENSION_NAMES))}")
    name, benchmark = row.need("method"), benchmarks.full_name(row.need("benchmark"))
    entry = benchmarks.find(benchmark)
    if entry is None:
        raise Refusal(f"benchmark: {benchmark}: of no known task family (kvopt/catalog/benchmarks.yaml)")
    method = labels.find(name, dimension)
    source = re.sub(r"\s*(?:\(stored text|;|@|, note|, page-cited).*", "", row.text("source")).strip()
    repository = re.match(r"[\w.-]+/[\w.-]+(?= |$)", source)
    key, value = _kept(row, dimension)
    return Reading(
        method=method.id if method else name.lower(),
        pool=(method.pool if method else "") or f"{dimension}?",
        dimension=dimension,
        question=_question(row),
        model=model_key(row.need("model")),
        benchmark=benchmark.lower(),
        task=entry.task,
        suite=entry.suite,
        average=entry.average,
        source=(repository.group(0) if repository else source).lower(),
        context=row.positive("context_len") or float(REFERENCE_CONTEXT),
        key=key,
        value=value,
        retained=_retained(row, perplexity=entry.task == "perplexity"),
    )


def _question(row: Row) -> Question:
    """Whether the selection saw the question; hidden where the row does not say."""
    written = row.text("query_aware").lower()
    if written in ("yes", "true", "1", "seen"):
        return "seen"
    if written in ("no", "false", "0", "hidden", ""):
        return "hidden"
    raise Refusal(f"query_aware: {written}: must be yes or no")


def _kept(row: Row, dimension: Dimension) -> tuple[float, float]:
    if dimension == "bits":
        bits = row.number("bits", low=1, high=16)
        if bits is None:
            raise Refusal("bits: missing")
        return labels.key_value_bits(row.text("method"), bits)
    share = row.number("kept_fraction", high=1, above=True)
    if share is None:
        raise Refusal("kept_fraction: missing")
    return share, share


def _retained(row: Row, perplexity: bool) -> float | None:
    score, baseline = row.number("score"), row.number("baseline")
    if score is None or baseline is None:
        return None
    if perplexity:
        for column, value in (("score", score), ("baseline", baseline)):
            if value < 1:
                raise Refusal(f"{column}: {value:g}: a perplexity must be 1 or more")
        return baseline / score
    if baseline == 0:
        raise Refusal("baseline: 0: must be above 0, or nothing is there to keep")
    most = 1.0 if baseline <= 1 else FULL_SCALE
    for column, value in (("score", score), ("baseline", baseline)):
        if value > most:
            raise Refusal(f"{column}: {value:g}: must be at most {most:g}, the most that is possible")
    return score / baseline
