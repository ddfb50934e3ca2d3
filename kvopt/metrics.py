"""What a plan gives, under the names that files and other programs rely on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kvopt.kept_programs import Program
from kvopt.problem import Problem
from kvopt.search import programs
from kvopt.search.evaluate import Given, State
from kvopt.search.lanes import Choice, Lane, lane_sums, lane_system, settings, stacked
from kvopt.search.pipeline import given
from objectives import goals
from objectives.limits import AT_LEAST, NAMES
from objectives.serving import decode, switching
from objectives.serving.concurrency import kv_pool_bytes, reserved_bytes
from objectives.serving.group import weight_bytes
from objectives.serving.kv_cache import session_bytes, token_bytes
from objectives.serving.prefill import alone_s
from objectives.serving.session import Service
from objectives.types import replace

LABELS = {
    "hbm": "HBM size",
    "hbm_peak": "HBM size: the longest session",
    "host_memory": "host memory",
    "host_link": "host link",
    "prefill_utilisation": "prefill FLOP/s",
    "max_sequences": "max-num-seqs",
    "ttft_s": "time to first token",
    "tpot_s": "time per output token",
    "accuracy": "accuracy floor",
}
"""The constraints as people name them."""
NEARLY = 0.02  # relative slack below which a constraint is said to bind


@Program
def _at_context(own: Given, lanes: Lane, x: Any, context: Any, new_tokens: Any) -> dict[str, Any]:
    """What is taken at one length, for a batch of points."""

    def one(mine: Given, lane: Lane, vector: Any) -> dict[str, Any]:
        plan, schedule = settings(lane, vector, mine.cap)
        system = lane_system(mine.system, lane)
        arch, effects = system.architecture, lane.effects
        have = lane_sums(system, lane, plan, schedule)
        once = lane_sums(system, lane, plan, replace(schedule, tensor_parallel=jnp.ones(()))).stored  # each byte, on one rank
        kv_s = decode.reading_s(arch, effects, have.reads, have.costs, context)
        session = session_bytes(arch, effects, once, context)
        grouped = session_bytes(arch, effects, have.stored, context)
        pool = kv_pool_bytes(system, schedule)
        return {
            "kv_bytes_per_token": token_bytes(arch, effects, once, context),
            "kv_bytes_per_session": session,
            "weight_bytes": weight_bytes(arch, system.checkpoint),
            "fitting": jnp.maximum(pool, 0) / grouped,
            "kv_pool_bytes": pool,
            "reserved_bytes": reserved_bytes(system, schedule) * schedule.tensor_parallel,
            "prefill_s": alone_s(arch, have.costs, have.shares, context),
            "decode_s_per_token": decode.decode_step_s(arch, have.costs, jnp.ones_like(context), kv_s),
            "context_switch_s": switching.switch_s(system, effects, have.moved, schedule, context, new_tokens)[1],
        }

    return jax.vmap(one)(own, lanes, x)


def plain(value: Any) -> Any:
    """A float for a file: `None` where it is unknown or impossible, a whole number as it is."""
    number = float(value)
    return number if math.isfinite(number) else None


def constraint_rows(state: State) -> list[dict[str, Any]]:
    """Every constraint with its value, limit, slack (in the same unit) and whether it holds."""
    rows = []
    for name in NAMES:
        value, limit = (float(entry) for entry in state.found[name])
        slack = value - limit if name in AT_LEAST else limit - value
        holds = not (slack < 0)  # an unknown quantity that nothing uses constrains nothing
        rows.append({"name": name, "value": plain(value), "limit": plain(limit), "slack": plain(slack), "satisfied": holds})
    return rows


def bottleneck(state: State, choice: Choice) -> str:
    """What binds: the constraints without slack, and the stage that fills the time."""
    broken = dict(zip(NAMES, np.asarray(state.broken), strict=True))
    failing = [LABELS[name] for name in NAMES if broken[name] > 0]
    if failing:
        return "infeasible: " + ", ".join(failing)
    binding = [LABELS[name] for name in NAMES if name != "accuracy" and broken[name] > -NEARLY]
    service: Service = state.service
    ceiling = float(service.sessions_per_gpu_s / service.ceiling_per_gpu_s)
    filled = "prefill FLOP/s" if ceiling > 0.5 else "decoding"
    return f"{', '.join(dict.fromkeys(binding))}; {100 * ceiling:.0f} % of the prefill ceiling" if binding else filled


def metrics(problem: Problem, choices: Sequence[Choice], x: np.ndarray, states: Sequence[State]) -> list[dict[str, Any]]:
    """The metrics of several points: at n = the mean prompt where they are taken at one length, over the session's real lengths otherwise."""
    own = given(problem, ())
    lanes = stacked(problem, list(choices))
    new_tokens = float(np.sum(problem.sessions.weight * (problem.sessions.question + problem.sessions.answer)))
    context = np.float64(problem.context)
    rows: list[dict[str, Any]] = []
    with jax.enable_x64(True):
        for start in range(0, len(x), programs.EXACT):
            batch = programs.rows((programs.repeat(own, len(x)), lanes, x), start, len(x), programs.EXACT)
            found = jax.device_get(_at_context(*batch, context, np.float64(min(new_tokens, context))))
            rows += [{name: float(values[i]) for name, values in found.items()} for i in range(min(programs.EXACT, len(x) - start))]
    return [_row(problem, choice, state, at) for choice, state, at in zip(choices, states, rows, strict=True)]


def _row(problem: Problem, choice: Choice, state: State, at: dict[str, float]) -> dict[str, Any]:
    service, d = state.service, choice.deployment
    broken = np.asarray(state.broken)
    unknown = bool(np.isnan(float(service.sessions_per_s)))
    serves = bool(np.all(broken <= 0)) or unknown  # what is not known is null, not nothing
    groups = d.replicas * d.pp
    over_session = {
        "decode_step_s": service.decode_step_s,
        "sessions_per_gpu_hour": state.values["sessions_per_gpu_hour"] if serves else 0.0,
        "prefill_ceiling_per_gpu_hour": goals.prefill_ceiling_per_gpu_hour(service),
        "users_per_gpu": state.values["users_per_gpu"] if serves else 0.0,
        "requests_in_flight": goals.requests_in_flight(service) if serves else 0.0,
        "output_tokens_per_gpu_s": state.values["output_tokens_per_gpu_s"] if serves else 0.0,
        "ttft_s": state.values["ttft_s"],
        "ttft_follow_up_s": service.ttft_follow_up_s,
        "tpot_s": state.values["tpot_s"],
        "accuracy_retained": state.retained,
        "accuracy_lower": state.lower,
        "cost_per_session_usd": state.values["cost_per_session_usd"] if serves else math.nan,
        "energy_per_session_j": state.values["energy_per_session_j"] if serves else math.nan,
        "prefill_utilisation": service.prefill_utilisation,
        "link_utilisation": service.link_utilisation,
        "users_thinking": service.thinking * groups / problem.scenario.gpus,
        "memory_used_bytes": service.memory_used,
        "host_memory_used_bytes": service.host_used,
    }
    slots = (d.replicas - d.prefill_groups) * d.pp
    whole = slots * math.floor(at["fitting"] + 1e-9) if math.isfinite(at["fitting"]) else math.nan
    taken = {name: at[name] for name in at if name != "fitting"} | {"concurrency": whole}
    return {name: plain(value) for name, value in {**taken, **over_session}.items()}


def assess(problem: Problem, choices: Sequence[Choice], x: np.ndarray, load: bool = True) -> tuple[np.ndarray, list[State]]:
    """Points in double precision: at the largest load they carry, or with `load=False` at the load they state."""
    lanes = stacked(problem, list(choices))
    targets = programs.repeat(problem.targets, len(x))
    return programs.exact([given(problem, ())] * len(x), lanes, targets, np.asarray(x, np.float64), load)
