"""How well capacity is predicted for sources that the fit has not seen: every source of the collected start-up logs left out in turn."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from kvopt.capacity import constants, fit, fit_report
from kvopt.capacity.fit_spread import Residual, fit_spread
from kvopt.capacity.formats import layer_bytes
from kvopt.capacity.logs import read
from kvopt.validation.errors import errors
from kvopt.validation.outcome import Outcome
from kvopt.validation.rows import Refusal, Row, Table, read_table

LOGS = Path(__file__).parents[4] / "shared" / "data" / "capacity_logs.csv"
evidence = pytest.mark.skipif(not LOGS.exists(), reason="the folder with the evidence is not beside the repository")
PREDICTED = 0.9  # of the fully specified rows
OLD_PADDING = "0.5.1", "0.7.2"


@pytest.fixture(scope="module")
def table() -> Table:
    return read_table(LOGS)


@pytest.fixture(scope="module")
def stated(table: Table) -> list[Row]:
    return [row for row in table.rows if row.text("fully_specified").startswith("Y")]


@pytest.fixture(scope="module")
def left_out(table: Table, stated: list[Row]) -> list[list[Outcome]]:
    """At 0.5 and at 0.9."""
    return fit_report.left_out_outcomes(stated, fit.left_out(fit.observations(table.rows)), (0.5, 0.9))


@evidence
def test_each_source_left_out(left_out: list[list[Outcome]]) -> None:
    """Median at most 2.4 %, 90th percentile 15 %; the 90 % interval holds 85 to 95 %; at confidence 0.9 at most 10 % are over-predicted."""
    middle, quoted = left_out
    assert sum(not outcome.refused for outcome in middle) >= PREDICTED * len(middle)
    tokens = errors(middle)["kv_tokens"]
    assert tokens["median_abs_pct"] <= 2.4
    assert tokens["p90_abs_pct"] <= 15
    assert 0.85 <= tokens["interval_coverage"] <= 0.95
    assert errors(quoted)["kv_tokens"]["over_predicted_pct"] <= 10
    assert errors(middle)["max_concurrency_logged"]["p90_abs_pct"] <= 15


@evidence
def test_bytes_per_token_are_exact(stated: list[Row]) -> None:
    """Against the collection's own figures, which count every layer whole; that of one log leaves the indexer out, as its row says."""
    seen: Counter[bool] = Counter()
    for row in stated:
        expected = row.positive("kv_bytes_per_token_per_gpu_calc")
        try:
            deployment = read(row).capacity.deployment
        except Refusal:
            continue
        if expected is None or "indexer not counted" in row.text("kv_cache_dtype"):
            continue
        spec = deployment.model
        got = sum(repeat * layer_bytes(deployment, spec.kinds[kind]) for kind, repeat in spec.order) / deployment.pp
        assert got == expected, f"line {row.line}"
        seen[got == expected] += 1
    assert seen[True] >= 75


@evidence
def test_what_a_log_printed_changes_no_prediction(stated: list[Row]) -> None:
    printed = [name for name in stated[0].cells if name.endswith(("_logged", "_calc")) and name != "gpu_total_gib_logged"] + ["kv_tokens"]
    for row in stated[::7]:
        bare = Row(row.line, {**row.cells, **dict.fromkeys(printed, "")})
        try:
            assert read(row).capacity.middle == read(bare).capacity.middle
        except Refusal:
            continue


@evidence
def test_the_committed_constants_are_those_of_the_fit(table: Table) -> None:
    values, deviations = fit.fitted(fit.observations(table.rows))
    for name, held in values.items():
        for field, value in held.items():
            assert getattr(constants.load(name), field).value == pytest.approx(value, rel=0.02), (name, field)
            assert deviations[name, field] > 0


def test_priors_alone_are_a_fit_to_nothing() -> None:
    values, _ = fit.fitted([])
    for prior in fit.PRIORS:
        for name in prior.generations:
            assert values[name][prior.field] == pytest.approx(prior.value)


def test_sources_are_told_apart_by_repository_and_issue() -> None:
    def source(text: str) -> str:
        return fit.source_of(Row(2, {"source": text}))

    assert source("llm-d-incubation/llm-d-planner PR#205, commit d3121e059da8, a.log") == "llm-d-incubation/llm-d-planner PR#205"
    assert source("vllm-project/vllm#10517 (comment)") == "vllm-project/vllm#10517"


def test_the_spread_follows_the_residuals() -> None:
    draws = np.random.default_rng(0).standard_t(3, 400)
    spreads = fit_spread([Residual("vllm-0.17", str(index), float(draw if draw < 0 else draw / 2), 0.01, 0.01) for index, draw in enumerate(draws)])
    assert spreads["new"]["base_gib"] == pytest.approx(1.0, rel=0.2)
    assert spreads["new"]["high"] == pytest.approx(0.5, rel=0.2)
    assert spreads["old"]["base_gib"] == pytest.approx(0.25, rel=0.05)  # nothing seen: what was expected


def test_the_catalog_is_written_as_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    data = {"engine": "vllm", "since": [0, 8, 0], "single_gib": {"value": 0.2, "spread": 0.1, "source": "a, b: c", "tag": "derived"}}
    assert yaml.safe_load(fit_report.dump(data)) == data
