"""`kvopt.simulate`: a plan of a scenario in discrete events, beside what the closed form says of it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kvopt import any_engine, describe, named
from kvopt.infeasible import weights_do_not_fit
from kvopt.inputs.scenario import Scenario
from kvopt.plans import to_plan
from kvopt.problem import Problem, resolve
from kvopt.results import Result
from kvopt.search.best import Point
from kvopt.search.lanes import BATCH, Choice, lane_system, memory_left, sequence_cap, settings, stacked
from kvopt.simulation import closed_form
from kvopt.simulation.closed_form import ClosedForm
from kvopt.simulation.engine import Limits
from kvopt.simulation.run import Setting, Simulation, Window
from kvopt.simulation.sessions import Draws, Session, longest, replayed
from kvopt.simulation.steps import tabulate
from kvopt.simulation.traffic import OPTIONS, REQUESTS, Traffic, traffic
from kvopt.simulation.users import Manners

LIFETIMES = 2.0  # that a stream is warmed up for
SHOWN = 2.0  # lifetimes that the timeline shows
GIB = 2.0**30


def simulate(scenario: Scenario | None = None, plan: dict[str, Any] | None = None, **fields: Any) -> Result:
    """What a plan gives when every step is played: latencies with their percentiles, throughput, preemptions, each beside the closed form's figure.

    The plan is that of `analyze` unless given as a result holds it (`result.data["plan"]`). Takes the scenario's fields and the options of
    `kvopt.simulation.traffic.OPTIONS` by name. Raises `BadInput`; a plan that cannot hold its first request is a result with `feasible` false.
    """
    asked = traffic(**{name: fields.pop(name) for name in list(fields) if name in OPTIONS})
    if asked.trace is not None and "workload" not in fields and (scenario is None or "workload" not in scenario.model_fields_set):
        fields["workload"] = str(asked.trace)
    if scenario is None or fields:
        given = {} if scenario is None else scenario.model_dump(exclude_unset=True)
        scenario = Scenario.of(**{**given, **fields})
    problem = resolve(scenario)
    problem.require_known()
    problem = any_engine.of_plan(problem, plan) if plan is not None else any_engine.named_best(problem)
    question = {"scenario": describe.scenario(problem)}
    choice, x, loaded = _plan(problem, asked, plan)
    if memory_left(problem, [choice.deployment], choice.weights).max() <= 0:
        why = weights_do_not_fit(problem)
        return Result("simulate", {**question, "plan": to_plan(problem, choice, x), "infeasible": why}, problem.warnings, False)
    found = played(problem, choice, x, asked, loaded)
    return Result("simulate", {**question, **found}, problem.warnings, "infeasible" not in found)


def _plan(problem: Problem, asked: Traffic, plan: dict[str, Any] | None) -> tuple[Choice, np.ndarray, bool]:
    """The plan's choice and settings, and whether its load is that which it serves."""
    if plan is not None:
        return (*named.restored(problem, plan), True)
    cases = named.cases(problem)
    if memory_left(problem, [case[0].deployment for case in cases[:1]], cases[0][0].weights).max() <= 0:
        return (*cases[0], False)
    if len(cases) == 1 and (asked.kind != "users" or asked.users is not None):  # nothing to choose, and no load to find
        return (*cases[0], False)
    point = named.best_case(problem)
    return point.choice, point.x, True


def verified(problem: Problem, point: Point) -> dict[str, Any]:
    """The simulated figures of a plan at the load that it is recommended for, and whether its targets hold at the 95th percentile."""
    found = played(problem, point.choice, point.x, Traffic(), loaded=True)
    if "infeasible" in found:
        return {**found, "holds_at_p95": False}
    simulated, targets = found["simulation"], problem.targets
    held = [(simulated["ttft_worse_s"]["p95"], targets.ttft_s), (simulated["tpot_s"]["p95"], targets.tpot_s)]
    return {
        **simulated,
        "traffic": found["traffic"],
        "ratio": found["ratio"],
        "holds_at_p95": all(value is None or value <= float(limit) for value, limit in held),
    }


@dataclasses.dataclass(frozen=True)
class Case:
    """A plan ready to be played."""

    problem: Problem
    choice: Choice
    setting: Setting
    form: ClosedForm


def prepared(problem: Problem, choice: Choice, x: np.ndarray, asked: Traffic, loaded: bool = True, most: int = 0) -> Case:
    """The tables, limits and closed form of a plan. `loaded`: its cap on requests is that of its load; `most`: [tokens] of the longest session met."""
    lane = jax.tree.map(lambda leaf: leaf[0], stacked(problem, [choice]))
    with jax.enable_x64(True):
        plan, schedule = jax.device_get(settings(lane, jnp.asarray(x), np.float64(sequence_cap(problem))))
    if not loaded:
        schedule = dataclasses.replace(schedule, max_sequences=np.float64(sequence_cap(problem)))
    system, d = lane_system(problem.system(choice.weights), lane), choice.deployment
    tokens = max(int(schedule.chunk), 1)
    sequences = max(min(int(schedule.max_sequences), tokens), 1)
    steps = tabulate(system, plan, lane.effects, schedule, most or longest(problem.sessions), sequences, problem.engine.block_tokens)
    top = len(steps.stored) - 1
    pool = steps.pool if asked.kv_tokens is None else asked.kv_tokens * (steps.stored[top] - steps.state) / (top * steps.block)
    prefixes = steps.stored[min(steps.blocks(round(float(schedule.prefix_cache_tokens))), top)]
    several = bool(np.any(problem.sessions.turns > 1))
    caches = problem.engine.prefix_caching.available and problem.scenario.fidelity != "peak"
    shared = math.gcd(d.prefill_groups, d.replicas - d.prefill_groups) if d.prefill_groups else d.replicas
    setting = Setting(
        steps=steps,
        limits=Limits(tokens, sequences, caches, swaps=d.park and several, parks=d.park and several),
        manners=Manners(asked.thinking, float(schedule.idle_resident) > 0, d.park, steps.server_s),
        pool=max(int(pool) - prefixes, 0),
        decoding=(d.replicas - d.prefill_groups) // shared if d.prefill_groups else 1,
        prefilling=d.prefill_groups // shared,
        groups_per_gpu=(d.replicas - d.prefill_groups) / (d.replicas * d.tp),
    )
    form = ClosedForm(system, plan, lane.effects, schedule, problem.targets, None if asked.kv_tokens is None else pool)
    return Case(problem, choice, setting, form)


def played(problem: Problem, choice: Choice, x: np.ndarray, asked: Traffic, loaded: bool) -> dict[str, Any]:
    """Plan, traffic, simulated figures, the closed form's and their ratios; or why its first request can never be held."""
    sessions = replayed(asked.trace, asked.requests) if asked.trace is not None else None
    most = max(session.longest for session in sessions) if sessions else longest(problem.sessions)
    case = prepared(problem, choice, x, asked, loaded, most)
    found: dict[str, Any] = {"plan": to_plan(problem, choice, x)}
    simulation = Simulation(case.setting, problem.scenario.seed)
    draws = Draws(problem.sessions, float(case.form.schedule.prefix_cache_tokens), simulation.random)
    first = sessions[0] if sessions else next(draws)
    if not simulation.users.fits(first.longest):
        return {**found, "infeasible": _too_long(case.setting, first)}
    if sessions is not None:
        return found | _replay(case, simulation, sessions)
    return found | _stream(case, simulation, draws, asked, float(x[BATCH]))


def _replay(case: Case, simulation: Simulation, sessions: list[Session]) -> dict[str, Any]:
    simulated = simulation.replay(sessions)
    arrivals = [turn.arrival_s or 0.0 for session in sessions for turn in session.turns]
    rate = len(sessions) / max(max(arrivals), 1e-9)
    told = {"kind": "trace", "sessions": len(sessions), "sessions_per_s": rate, "warmup_s": 0.0}
    return _beside(case, told, simulated, case.form.at_rate(rate)) | {"timeline": simulation.timeline.rows()}


def _stream(case: Case, simulation: Simulation, draws: Draws, asked: Traffic, batch: float) -> dict[str, Any]:
    if asked.rate is not None:
        point = case.form.at_rate(asked.rate)
        told: dict[str, Any] = {"kind": "rate", "sessions_per_s": asked.rate}
        simulation.users.open(draws, asked.rate * case.setting.decoding)
    else:
        users = asked.users or max(1, round(case.form.at_load(batch)["users"]))
        point = case.form.at_users(users)
        told = {"kind": "users", "users": users}
        simulation.users.closed(draws, users * case.setting.decoding, point["lasts_s"])
    warmup = LIFETIMES * point["lasts_s"] if asked.warmup_s is None else asked.warmup_s
    requests = None if asked.duration_s is not None else asked.requests or REQUESTS
    simulated = simulation.measure(Window(warmup, requests, asked.duration_s), SHOWN * point["lasts_s"])
    return _beside(case, {**told, "thinking": asked.thinking, "warmup_s": warmup}, simulated, point) | {"timeline": simulation.timeline.rows()}


def _beside(case: Case, told: dict[str, Any], simulated: dict[str, Any], point: dict[str, float]) -> dict[str, Any]:
    said = closed_form.figures(point)
    told |= {"seed": case.problem.scenario.seed, "max_num_seqs": case.setting.limits.sequences, "chunk": case.setting.limits.tokens}
    return {"traffic": told, "simulation": simulated, "closed_form": said, "ratio": closed_form.ratios(simulated, said)}


def _too_long(setting: Setting, session: Session) -> dict[str, Any]:
    """Why the first session can never be served."""
    steps = setting.steps
    blocks = steps.blocks(session.longest)
    need = max(steps.stored[blocks], steps.filling[blocks])
    return {
        "constraint": "hbm_peak",
        "value": need,
        "limit": setting.pool,
        "reason": f"the first request cannot be admitted: its {session.longest:,} tokens take {blocks:,} blocks of {steps.block} ({need / GIB:.2f} GiB), "
        f"and the pool of a group holds {setting.pool / GIB:.2f} GiB",
        "change": "a shorter --context, more --gpus, or a smaller cache (optimize searches one)",
    }
