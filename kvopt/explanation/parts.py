"""The parts of what a plan gives: bytes, FLOP and seconds, in double precision, from the same functions that the search uses."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kvopt.kept_programs import Program
from kvopt.problem import Problem
from kvopt.search.best import Point
from kvopt.search.evaluate import Given
from kvopt.search.lanes import Lane, lane_sums, lane_system, plan_losses, settings, stacked
from kvopt.search.pipeline import given
from objectives.goals import Targets
from objectives.serving import breakdown
from objectives.serving.concurrency import kv_pool_bytes, reserved_bytes
from objectives.serving.group import weight_bytes
from objectives.serving.kv_cache import session_bytes, token_bytes
from objectives.serving.session import Service
from objectives.serving.switching import link_bandwidth
from objectives.types import replace


def _parts(own: Given, lane: Lane, x: Any, context: Any, targets: Targets, service: Service) -> dict[str, Any]:
    plan, schedule = settings(lane, x, own.cap)
    system = lane_system(own.system, lane)
    arch, effects, ranks = system.architecture, lane.effects, schedule.tensor_parallel
    have = lane_sums(system, lane, plan, schedule)
    once = lane_sums(system, lane, plan, replace(schedule, tensor_parallel=jnp.ones(()))).stored
    costs = have.costs
    whole = breakdown.chunk_of(arch, effects, have, replace(schedule, chunk=jnp.maximum(context, 1.0)), context)
    whole = whole._replace(reread_bytes=jnp.zeros(()))  # in one piece nothing is read again
    chunk = breakdown.chunk_of(arch, effects, have, schedule, context)
    kv_s = breakdown.decode.reading_s(arch, effects, have.reads, costs, context)
    done = breakdown.runs(system, have, effects, schedule, service)
    seen = breakdown.together(arch, costs, service)
    middle, edge = plan_losses(lane, plan), plan_losses(lane, plan, targets.z)
    if lane.by_block is not None:
        middle, edge = lane.by_block.middle, lane.by_block.edge
    kv_bytes, flop = breakdown.kv_read_bytes(arch, effects, have, context), breakdown.decode_flop(arch, effects, have, context)

    def decoding(requests: Any) -> dict[str, Any]:
        read = breakdown.weights_read_bytes(system, costs, requests) + requests * kv_bytes / ranks
        seconds = sum(breakdown.decode_terms(arch, costs, requests, kv_s).values(), jnp.zeros(()))
        return {"requests": requests, "flop": requests * flop / ranks, "bytes": read, "seconds": seconds}

    return {
        "sizes": {
            "token": token_bytes(arch, effects, once, context),
            "session": session_bytes(arch, effects, once, context),
            "on_group": session_bytes(arch, effects, have.stored, context),
            "state": once.state_bytes,
            "moved": session_bytes(arch, effects, have.moved, context),
            "weights": weight_bytes(arch, system.checkpoint),
            "weights_on_slot": weight_bytes(arch, system.checkpoint, schedule.attention_data_parallel) / schedule.pipeline_parallel,
            "reserve": reserved_bytes(system, schedule),
            "pool": kv_pool_bytes(system, schedule),
            "pool_sure": kv_pool_bytes(system, schedule, targets.z),
        },
        "link": link_bandwidth(system, schedule),
        "prefill": breakdown.prefill_terms(arch, costs, whole),
        "prefill_flop": {"linear": whole.linear_flop, "attention": whole.attention_flop},
        "decode": breakdown.decode_terms(arch, costs, jnp.ones(()), kv_s),
        "decode_kv_bytes": kv_bytes,
        "step": breakdown.decode_terms(arch, costs, seen, service.kv_step_s),
        "seen": seen,
        "tpot": service.tpot_s,
        "session": breakdown.session_terms(system, have, effects, schedule, service, done),
        "ceiling": breakdown.ceiling_terms(system, schedule, done),
        "waits": breakdown.first_token_terms(system, have, effects, schedule, service, done),
        "chunk": {
            "tokens": chunk.tokens,
            "flop": (chunk.linear_flop + chunk.attention_flop) / ranks,
            "bytes": breakdown.weights_read_bytes(system, costs, chunk.tokens) + chunk.reread_bytes / ranks,
            "seconds": sum(breakdown.prefill_terms(arch, costs, chunk).values(), jnp.zeros(())),
        },
        "alone": decoding(jnp.ones(())),
        "batched": decoding(seen),
        "losses": {"middle": middle, "edge": edge},
    }


def _cheap() -> dict[str, Any]:
    """Evaluated a few times: compiling is what takes long."""
    return {"xla_backend_optimization_level": 0}


_PARTS = Program(_parts, options=_cheap)


def parts(problem: Problem, point: Point) -> dict[str, Any]:
    """The parts of a point as plain numbers, nested: see the keys above. What needs an unknown number is NaN."""
    lane = jax.tree.map(lambda leaf: leaf[0], stacked(problem, [point.choice]))
    own, service = given(problem, ()), jax.tree.map(np.float64, point.state.service)
    targets = jax.tree.map(np.float64, problem.targets)
    with jax.enable_x64(True):
        found = _PARTS(own, lane, np.asarray(point.x, np.float64), np.float64(problem.context), targets, service)
        return {**_plain(jax.device_get(found)), **_of_sessions(problem), "uncompressed": _uncompressed(problem)}


def _uncompressed(problem: Problem) -> dict[str, float]:
    """[bytes] that one more token takes in 16 bit in all layers of a kind that grow with the context, by the kind in words."""
    found = {}
    for name, kind in problem.model.kinds.items():
        count = sum(repeat for other, repeat in problem.model.order if other == name)
        grows = kind.global_rate + (problem.context < kind.window)  # a window that is not full grows too
        if kind.stores and kind.kv_heads and grows:
            entries = f"{count} {name} layers x {kind.kv_heads} KV heads x ({kind.key_width} + {kind.value_width}) elements x 2"
            rate = "" if grows == 1 else f" x {grows:g} entries a token"
            found[entries + rate] = count * kind.kv_heads * (kind.key_width + kind.value_width) * 2 * grows
        if kind.index_width and kind.index_rate:
            found[f"{count} {name} layers x {kind.index_width} elements of index key x 2"] = count * kind.index_width * kind.index_rate * 2
    return found


def _of_sessions(problem: Problem) -> dict[str, float]:
    """Means of a session: its questions, the tokens of all its answers, and [s] of thinking."""
    w = problem.sessions
    means = {"turns": w.turns, "answered": w.turns * w.answer, "thinking_s": (w.turns - 1) * w.think_s}
    return {name: float(np.sum(w.weight * values)) for name, values in means.items()}


def _plain(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _plain(value) for name, value in tree.items()}
    if hasattr(tree, "__dataclass_fields__"):
        return {name: _plain(getattr(tree, name)) for name in tree.__dataclass_fields__}
    return float(tree)
