"""Waiting and overlap on a group whose users ask again only once they are answered: a closed loop of finitely many.

Nobody queues behind themselves. With N users, what one of them finds on arrival is what the other N - 1 leave, about (N - 1) / N of the mean state
(Schweitzer's approximation of the arrival theorem for closed networks); N itself follows from Little's law. As N grows this is the open queue.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

MOST = 0.99  # utilisation at which the wait stops growing: beyond it the constraints judge
SOFT = 0.1  # users over which "at least one" is rounded


class Queue(NamedTuple):
    """What a session asks of a prefill queue: one prompt at a time, first come first served. Scalars."""

    service_s: Array  # [s] of prefill in the queue, all prompts of a session
    second_moment: Array  # [s^2] the sum of their squares
    elsewhere_s: Array  # [s] of a session that are neither decoded nor waited
    slots: Array | float  # decoding slots that share the queue, each with its rate of sessions


def wait_s(queue: Queue, rate: Array, users: Array) -> Array:
    """[s] mean wait of a prompt: Pollaczek-Khinchine for what the other users bring.

    `rate`: [1/s] sessions, and `users`, both per decoding slot.
    """
    others = 1 - 1 / jnp.maximum(queue.slots * users, 1.0)
    utilisation = jnp.minimum(queue.slots * rate * queue.service_s, MOST)
    return others * queue.slots * rate * queue.second_moment / 2 / (1 - others * utilisation)


def population(queue: Queue, rate: Array, decoding: Array) -> Array:
    """Users per decoding slot, at least 1, by Little's law: `decoding` decode, the others are elsewhere.

    Those who wait are left out: where anyone waits there are many users, and then their number no longer matters. Counting them in moved no rate that was
    compared with a simulation by more than 1.5 %, at twice the compile time.
    """
    return at_least_one(decoding + rate * queue.elsewhere_s)


def at_least_one(number: Array) -> Array:
    """max(number, 1), rounded at the corner."""
    others = number - 1
    return 1 + (others + jnp.sqrt(others**2 + SOFT**2)) / 2


def present(batch: Array, users: Array | float) -> Array:
    """Decodes in flight given that there are any, when each of the users decodes for a share batch / users of the time: Poisson for many."""
    share = jnp.clip(batch / users, 1e-9, 0.999)
    return batch / -jnp.expm1(batch * jnp.log1p(-share) / share)
