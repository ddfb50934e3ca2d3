"""What a search leaves out beforehand, and the losses that this is judged by."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from kvopt.accuracy import curves
from kvopt.inputs.method import load
from kvopt.inputs.scenario import Scenario
from kvopt.problem import Problem, resolve
from kvopt.search import dominance
from kvopt.search.dominance import undominated
from objectives.accuracy.proxies import bits_loss, keep_loss


@pytest.fixture(scope="module")
def problem() -> Problem:
    return resolve(Scenario.of(model="llama-3.1-8b", accelerator="h100-sxm", gpus=1, context="32k", turns=1))


def test_losses_of_many_curves_are_those_of_each(problem):
    kept, stored = (curves.find(load(name), problem.asked) for name in ("snapkv", "kivi"))
    assert kept is not None
    assert stored is not None
    shares, bits = np.array([[0.9, 0.9], [0.25, 0.25], [0.1, 0.1]]), np.array([[4.0, 2.0]])
    (first, again), (pair,) = (
        dominance._losses(dominance._of_shares, [kept.keep_loss()] * 2, [shares, shares[:1]], 1.3),
        dominance._losses(dominance._of_bits, [stored.bits_loss()], [bits], 1.3),
    )
    with jax.enable_x64(True):
        for column, z in enumerate((0.0, 1.3)):
            np.testing.assert_allclose(first[:, column], keep_loss(shares[:, 0], kept.keep_loss(), z), rtol=1e-12)
            np.testing.assert_allclose(pair[0, column], bits_loss(4.0, 2.0, stored.bits_loss(), z), rtol=1e-12)
    np.testing.assert_array_equal(again, first[:1])


@pytest.mark.parametrize("name", ["snapkv", "kivi"])
def test_of_two_alike_one_stays(problem, name):
    method = load(name)
    standing = undominated(problem, [method, method])
    assert [one.id for one in standing][:1] == [name]
    if method.dimension != "bits":  # formats are compared between methods alone
        assert len(standing) == 1


def test_nothing_without_evidence_stays(problem):
    assert undominated(problem, []) == []
