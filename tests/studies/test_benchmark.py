"""The study `benchmark`, on few evaluations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from kvopt.inputs.scenario import Scenario
from kvopt.problem import resolve
from kvopt.search.lanes import FIELDS
from objectives.types import replace
from studies import benchmark


def test_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "UNIFORM", 8)
    monkeypatch.setattr(benchmark, "REPEATS", 1)
    found = benchmark.rates(resolve(Scenario.of()))
    assert min(found) > 0


def test_by_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Added up layer by layer, a plan is worth what it is where every layer stands in the model by itself."""
    monkeypatch.setattr(benchmark, "PER_LAYER", 2)
    with jax.enable_x64(True):
        made = benchmark.by_layer(resolve(Scenario.of(model="llama-3.2-1b")))
        (inner, outer), shared = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (made.settings, made.shared))
        lane = replace(shared[1], **{part: jax.tree.map(lambda leaf: 0.4 + 0 * leaf, getattr(shared[1], part)) for part in ("effects", "accuracy")})
        own, _, targets, fine, kinds = shared
        alone = own._replace(system=replace(own.system, architecture=fine))

        @jax.jit
        def directly(inner: dict[str, jax.Array], outer: dict[str, jax.Array]) -> jax.Array:
            plan = dict.fromkeys(FIELDS, jnp.ones(())) | {"key_bits": jnp.asarray(16.0), "value_bits": jnp.asarray(16.0)}
            wide = {name: value[:, None] for name, value in inner.items()}
            return benchmark._whole(tuple({**plan, **wide, **outer}[name] for name in FIELDS), (alone, lane, targets))

        at = jax.tree.map(lambda leaf: leaf[..., 0], (inner, outer))
        value = jax.jit(benchmark._whole_by_layer)(at, (own, lane, targets, fine, kinds))
        assert float(value) == pytest.approx(float(directly(*at)), rel=1e-9)


def test_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def rates(problem, per_layer=False):
        asked.append((len(problem.workload.atoms), per_layer))
        return benchmark.Rates(100.0, 25.0, 1.0, 2.0)

    monkeypatch.setattr(benchmark, "rates", rates)
    monkeypatch.setattr(benchmark, "front_times", lambda: (60.0, 30.0))
    result = benchmark.run()
    assert asked == [(1, False), (32, False), (1, True)]
    assert {row["gradient / value"] for row in result.rows[:3]} == {4.0}
    assert "240 settings" in result.rows[2]["what"]
    assert [row["seconds"] for row in result.rows[3:5]] == [60.0, 30.0]
    assert 0 < result.rows[5]["seconds"] < 30
    assert len(benchmark.run(front=False).rows) == 4
