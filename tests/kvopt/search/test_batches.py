from __future__ import annotations

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from kvopt.search.batches import in_batches

POINTS = {"a": np.arange(10.0), "b": np.arange(30.0).reshape(10, 3)}


def test_any_number_of_points_is_one_program_and_comes_back_whole():
    shapes = []

    @jax.jit
    def function(shared, points, scale):
        shapes.append(points["b"].shape)
        return {"sum": shared * points["a"] + points["b"].sum(axis=1) * scale, "place": points["a"].astype(int)}

    for count in (1, 4, 9, 10):
        points = {name: leaf[:count] for name, leaf in POINTS.items()}
        found = in_batches(function, np.float32(2), (points, np.ones(count)), 4)
        np.testing.assert_array_equal(found["sum"], 2 * points["a"] + points["b"].sum(axis=1))
        assert found["sum"].dtype == np.float64
        assert found["place"].tolist() == list(range(count))
    assert shapes == [(4, 3)]


def test_static_arguments_are_passed_on():
    function = jax.jit(lambda shared, x, twice: 2 * x if twice else x, static_argnames=("twice",))
    assert in_batches(function, None, (np.arange(3.0),), 2, {"twice": True}).tolist() == [0, 2, 4]


@pytest.mark.parametrize("points", [(np.zeros(0),), (np.zeros(3), np.zeros(2))])
def test_points_that_do_not_match_are_refused(points):
    with pytest.raises(ValueError, match="one row a point"):
        in_batches(jax.jit(lambda shared, *x: x), None, points, 4)


EIGHT = """
import jax, numpy as np
from kvopt.search.batches import in_batches
x = np.random.default_rng(0).uniform(size=(75, 5)).astype(np.float32)
seen = []
compiled = jax.jit(lambda shared, x: jax.numpy.exp(shared * x).sum(axis=1))
def function(shared, x):
    found = compiled(shared, x)
    seen.append(next(iter(found.devices())).id)
    return found
found = in_batches(function, np.float32(3), (x,), 8)
assert len(jax.local_devices()) == 8
assert seen == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1], seen
jax.local_devices = lambda: jax.devices()[:1]
np.testing.assert_array_equal(in_batches(function, np.float32(3), (x,), 8), found)
assert seen[10:] == 10 * [0]
"""


def test_eight_devices_are_dealt_the_batches_and_answer_as_one():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    ran = subprocess.run([sys.executable, "-c", EIGHT], env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
