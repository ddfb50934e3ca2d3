"""The catalog of methods as a whole: kinds, the labels of published tables, exclusions and engines."""

from __future__ import annotations

from collections import Counter

import pytest

from kvopt import catalog
from kvopt.inputs import method
from kvopt.inputs.method import DIMENSIONS, POOLS, MethodSpec

SPECS = method.load_all()
by_id = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)


def test_every_file_loads() -> None:
    assert [spec.id for spec in SPECS] == list(catalog.ids("methods"))


@by_id
def test_a_method_has_a_pool_or_says_why_not(spec: MethodSpec) -> None:
    assert spec.pool or "no pool:" in spec.about.lower()


def test_every_pool_has_a_method() -> None:
    assert {(spec.dimension, spec.pool) for spec in SPECS if spec.pool} == {
        (dimension, pool) for dimension in DIMENSIONS for pool in POOLS[dimension]
    }


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_a_label_names_one_method_of_its_dimension(dimension: str) -> None:
    found = Counter(label.lower() for spec in SPECS if spec.dimension == dimension for label in spec.labels)
    assert [label for label, count in found.items() if count > 1] == []


@by_id
def test_every_method_has_labels(spec: MethodSpec) -> None:
    assert spec.labels
    assert all(label == label.strip() and label for label in spec.labels)


@by_id
def test_exclusions_are_known(spec: MethodSpec) -> None:
    known = {*DIMENSIONS, *catalog.ids("methods")}
    assert set(spec.excludes) <= known
    assert spec.dimension not in spec.excludes  # at most one method per dimension anyway
    assert spec.id not in spec.excludes


@by_id
def test_engines_of_a_method_are_known(spec: MethodSpec) -> None:
    assert {entry.engine for entry in spec.runs_in} <= set(catalog.ids("engines"))


def test_methods_that_are_several_in_one_exclude_the_others() -> None:
    assert all("token" in spec.excludes for spec in SPECS if spec.pool == "head-budgets")
    assert all("bits" in method.load(name).excludes for name in ("minikv", "rdkv", "subrotq"))
    assert all("token" in method.load(name).excludes for name in ("sals", "shadowkv"))


def test_retrieval_frees_no_memory() -> None:
    assert all(spec.cuts.stored == 0 and spec.cuts.read == 1 for spec in SPECS if spec.pool == "retrieval")
