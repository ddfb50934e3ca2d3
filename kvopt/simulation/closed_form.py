"""What the closed form says where a simulation looks: at so many users, or at so many sessions a second."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kvopt.simulation.figures import PERCENTILES
from objectives import goals
from objectives.goals import Targets
from objectives.serving import session
from objectives.serving.concurrency import kv_pool_bytes
from objectives.types import Effects, Plan, Schedule, System, replace

POINTS = 64  # loads that are evaluated at once
RESIDENT_STEPS = 6  # halvings of the share of idle caches that stay
LEAST, MOST = 1e-3, 4096.0  # decodes in flight


@partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # evaluated a few times: compiling is what takes long
def _served(system: System, plan: Plan, effects: Effects, schedule: Schedule, targets: Targets, batches: Any) -> dict[str, Any]:
    w = system.workload

    def at(batch: Any) -> dict[str, Any]:
        got = session.serve(system, plan, effects, session.at_batch(schedule, batch))
        follow_ups = jnp.sum(w.weight * (w.turns - 1))
        answers, thinking = jnp.sum(w.weight * w.turns * w.answer), jnp.sum(w.weight * (w.turns - 1) * w.think_s)
        first_s, later_s = got.ttft_first_s, got.ttft_follow_up_s
        lasts_s = first_s + follow_ups * later_s + answers * got.tpot_s + thinking
        mean_s = (first_s + follow_ups * later_s) / (1 + follow_ups)
        shares = jnp.array(PERCENTILES) / 100
        normal = jnp.array([max(NormalDist().inv_cdf(p / 100), 0.0) for p in PERCENTILES])
        ttft_s = jax.vmap(lambda share: goals.ttft_s(got, w, replace(targets, ttft_percentile=share)))(shares)
        tpot_s = jax.vmap(lambda z: goals.tpot_s(got, replace(targets, tpot_z=z)))(normal)
        at_percentile = {f"ttft_p{p}": ttft_s[i] for i, p in enumerate(PERCENTILES)} | {f"tpot_p{p}": tpot_s[i] for i, p in enumerate(PERCENTILES)}
        return {
            "batch": got.batch,
            "users": got.sessions_per_s * lasts_s,
            "lasts_s": lasts_s,
            "rate": got.sessions_per_s,
            "sessions_per_gpu_hour": goals.sessions_per_gpu_hour(got),
            "output_tokens_per_gpu_s": goals.output_tokens_per_gpu_s(got, w),
            "ttft_mean": mean_s,
            "ttft_first": first_s,
            "ttft_follow_up": jnp.where(follow_ups > 0, later_s, jnp.nan),
            "ttft_worse": jnp.maximum(first_s, later_s),
            "tpot_mean": got.tpot_s,
            "wait": got.wait_s,
            "e2e": mean_s + (answers / (1 + follow_ups) - 1) * got.tpot_s,
            "prefill": got.prefill_utilisation,
            "memory": got.memory_used,
            "pool": kv_pool_bytes(system, schedule),
            "in_flight": got.batch + got.prefilling,
            "link": got.link_utilisation,
            **at_percentile,
        }

    return jax.vmap(at)(batches)


@dataclass(frozen=True)
class ClosedForm:
    """The closed form of one plan at any load. `pool`: [bytes] of a group, where it is known better than computed."""

    system: System
    plan: Plan
    effects: Effects
    schedule: Schedule
    targets: Targets
    pool: float | None = None

    def at(self, batches: np.ndarray) -> dict[str, np.ndarray]:
        """Everything at so many decodes in flight, `(POINTS,)` each."""
        with jax.enable_x64(True):
            found: dict[str, np.ndarray] = jax.device_get(_served(self.system, self.plan, self.effects, self.schedule, self.targets, batches))
        return found

    @cached_property
    def _coarse(self) -> dict[str, np.ndarray]:
        return self.at(np.geomspace(LEAST, MOST, POINTS))

    def _where(self, name: str, value: float) -> dict[str, float]:
        """The point at which a quantity that grows with the load has this value; the nearest end where it never has."""
        found = self._coarse
        for _ in range(2):
            place = int(np.clip(np.searchsorted(np.maximum.accumulate(found[name]), value), 1, POINTS - 1))
            found = self.at(np.geomspace(found["batch"][place - 1], found["batch"][place], POINTS))
        place = int(np.abs(found[name] - value).argmin())
        return {key: float(values[place]) for key, values in found.items()}

    def at_users(self, users: float) -> dict[str, float]:
        """The point with so many users per slot, as many idle caches resident as find room: what an LRU cache keeps."""
        point, stays = self._where("users", users), float(self.schedule.idle_resident)
        if not 0 < stays < 1:
            return point
        low, high = stays, 1.0
        for _ in range(RESIDENT_STEPS):
            middle = (low + high) / 2
            tried = self._resident(middle)._where("users", users)
            if tried["memory"] <= (tried["pool"] if self.pool is None else self.pool):
                low, point = middle, tried
            else:
                high = middle
        return point

    def _resident(self, share: float) -> ClosedForm:
        """The same with another share of the idle caches in HBM."""
        return replace(self, schedule=replace(self.schedule, idle_resident=np.float64(share)))

    def at_rate(self, rate: float) -> dict[str, float]:
        """The point with so many sessions a second per slot, or the fullest that memory and the cap on requests allow."""
        full = self.fullest()
        return full if full["rate"] <= rate else self._where("rate", rate)

    def at_load(self, batch: float) -> dict[str, float]:
        """The point with so many decodes in flight."""
        found = self.at(np.full(POINTS, batch))
        return {key: float(values[0]) for key, values in found.items()}

    def fullest(self) -> dict[str, float]:
        """The fullest point that memory and the cap on requests allow, latency targets apart."""
        pool = float(self._coarse["pool"][0]) if self.pool is None else self.pool
        by_memory = self._where("memory", pool)
        by_cap = self._where("in_flight", float(self.schedule.max_sequences))
        return min(by_memory, by_cap, key=lambda point: point["batch"])


def figures(point: dict[str, float]) -> dict[str, Any]:
    """A point under the names of what is simulated."""

    def spread(mean: str, name: str | None = None) -> dict[str, float | None]:
        found = {"mean": point[mean], **({f"p{p}": point[f"{name}_p{p}"] for p in PERCENTILES} if name else {})}
        return {key: value if np.isfinite(value) else None for key, value in found.items()}

    return {
        "sessions_per_gpu_hour": point["sessions_per_gpu_hour"],
        "output_tokens_per_gpu_s": point["output_tokens_per_gpu_s"],
        "ttft_s": spread("ttft_mean"),
        "ttft_first_s": spread("ttft_first"),
        "ttft_follow_up_s": spread("ttft_follow_up"),
        "ttft_worse_s": spread("ttft_worse", "ttft"),
        "tpot_s": spread("tpot_mean", "tpot"),
        "queueing_s": spread("wait"),
        "e2e_s": spread("e2e"),
        "utilisation": {"prefill": point["prefill"], "hbm": point["memory"] / point["pool"], "link": point["link"]},
        "decodes_in_flight": point["batch"],
    }


def ratios(simulated: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """Simulated over closed form, wherever both are known and not zero."""
    found: dict[str, Any] = {}
    for name, value in said.items():
        own = simulated.get(name)
        if isinstance(value, dict) and isinstance(own, dict):
            found[name] = ratios(own, value)
        elif isinstance(value, float) and isinstance(own, int | float):
            found[name] = own / value if value else None
    return found
