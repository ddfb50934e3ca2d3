"""Draws of what the fitted quantities may really be: how far each lies from its middle, in standard deviations.

Latency has a log spread for prefill and TTFT and one for decode and TPOT, the KV pool a spread in bytes, and each dimension of a plan a spread of what it
loses of accuracy. The first three are taken as independent of each other and of accuracy: they were fitted to different measurements. What dimensions lose has
`objectives.accuracy.composition.CORRELATION` in common.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri

from objectives.accuracy.composition import CORRELATION, Losses
from objectives.types import pytree

MARK = 0x6368616E  # sets these draws apart from others of the same seed


@pytree
class Draws:
    """Standard normal deviations, `(draws,)` each."""

    prefill: jax.Array
    decode: jax.Array
    memory: jax.Array
    losses: Losses  # of ln of what each dimension loses


def draws(seed: int, count: int) -> Draws:
    """So many draws, the same for the same seed, NumPy float64 leaves.

    A Latin hypercube: every one of `count` equal slices of each normal is drawn from once, so that each by itself is spread as it should be, and chance
    remains in what comes together.
    """
    names = tuple(Losses.__dataclass_fields__)
    key = jax.random.fold_in(jax.random.key(seed), MARK)
    with jax.enable_x64(True):
        ranks = jax.vmap(lambda one: jax.random.permutation(one, count))(jax.random.split(jax.random.fold_in(key, 0), 4 + len(names)))
        within = jax.random.uniform(jax.random.fold_in(key, 1), ranks.shape, jnp.float64)
    prefill, decode, memory, common, *own = ndtri((np.asarray(ranks) + np.asarray(within)) / count)
    shared, apart = np.sqrt(CORRELATION), np.sqrt(1 - CORRELATION)
    losses = {name: shared * common + apart * z for name, z in zip(names, own, strict=True)}
    return Draws(prefill=prefill, decode=decode, memory=memory, losses=Losses(**losses))
