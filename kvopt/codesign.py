"""Co-design: the accelerator, number by number within a box around a real one, that serves most sessions per dollar or per joule.

Adam on the logarithms of the numbers and on the share of idle caches that stay in HBM, from many starts at once. The load is solved again at every step, its
derivative comes from the implicit function theorem (`objectives.codesign.at_the_limit`): each step climbs the saturated rate itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from kvopt import named
from kvopt.card_costs import CostFit, fitted
from kvopt.errors import BadInput, unknown
from kvopt.inputs.scenario import Scenario
from kvopt.problem import Problem, resolve
from kvopt.search import programs
from kvopt.search.batches import in_batches
from kvopt.search.evaluate import Given, evaluate
from kvopt.search.lanes import BATCH, FIELDS, Choice, Lane, stacked, take
from kvopt.search.pipeline import given
from objectives.codesign import QUANTITIES, LinearCost, anchored, at_the_limit, cost, numbers, scaled, shares
from objectives.goals import Targets
from objectives.limits import NAMES
from objectives.types import replace

BOX = 4.0  # the numbers stay within this factor of the accelerator's own, either way
STARTS, STEPS, RATE, LAST = 32, 240, 0.1, 0.003  # of Adam, the starts one batch; its rate [per log unit] falls from one to the other as a cosine
STEP = 0.01  # of the logarithm, for slopes either side
RESIDENT = FIELDS.index("idle_resident")
BOUND = 1e-6  # slack, relative, below which a constraint is taken to hold the load
HOPELESS = -100.0  # of a card on which not even the least load is carried
_OF_LANE = {"peak_flops": "peak_flops_16bit", "scaleup_bandwidth": "scaleup_bandwidth"}


class Shared(NamedTuple):
    """What all designs share."""

    own: Given
    targets: Targets
    model: LinearCost


@dataclass(frozen=True)
class Number:
    """One number of the card, SI units. Slopes are percent of sessions per GPU-hour per percent of it, a step down and a step up, at the optimum."""

    reference: float
    best: float
    left: float
    right: float
    cost_share: float  # percent of the cost per percent of it, at the optimum

    @property
    def factor(self) -> float:
        """The optimum over the accelerator's own."""
        return self.best / self.reference


@dataclass(frozen=True)
class Codesign:
    """The best card within the box. `worth`: sessions per dollar, or per joule."""

    per: str  # dollar or joule
    feasible: bool
    reference_worth: float  # of the accelerator as it is, 0 where it serves nobody
    worth: float
    random_worth: float  # the best of as many random cards as the search evaluated
    evaluations: int
    sessions_per_gpu_hour: float
    cost: float  # [USD/h] or [W] of the best card; the accelerator itself costs what the catalog says
    reference_cost: float
    numbers: dict[str, Number]  # by QUANTITIES, the unknown left out
    binding: tuple[str, ...]  # constraints within 1 % of their limit there
    park: bool
    idle_resident: float
    fit: CostFit


class Values(NamedTuple):
    """Designs at the largest load that each carries, leading axis the designs."""

    worth: np.ndarray  # ln of sessions per unit of cost; where not even the least load is carried, below HOPELESS and falling with the violation
    rate: np.ndarray  # ln of sessions per GPU-hour
    broken: np.ndarray  # (designs, constraints) violations
    x: np.ndarray  # (designs, fields) settings, the load among them


def values(shared: Shared, lanes: Lane, x: np.ndarray, designs: np.ndarray) -> Values:
    """Designs `(designs, quantities + 1)`, logarithms of the factors and the share of idle caches that stays in HBM; lanes and settings beside them."""
    factors = np.exp(designs[:, : len(QUANTITIES)])
    system = shared.own.system
    owns = [shared.own._replace(system=replace(system, accelerator=scaled(system.accelerator, row))) for row in factors]
    settings = x.copy()
    settings[:, RESIDENT] = designs[:, -1]
    found, states = programs.exact(owns, _scaled_lane(lanes, factors.T), programs.repeat(shared.targets, len(x)), settings)
    rate = np.log([float(state.values["sessions_per_gpu_hour"]) for state in states])
    broken = np.array([state.broken for state in states])
    worst = broken[:, :-1].max(axis=1)  # accuracy, the last constraint, does not depend on the card
    known = np.nan_to_num([float(getattr(system.accelerator, name)) for name in QUANTITIES])
    paid = shared.model.base + (factors * known) @ shared.model.per_unit
    return Values(np.where(worst <= 0, rate - np.log(paid), HOPELESS - worst), rate, broken, found)


def slopes(shared: Shared, lanes: Lane, designs: np.ndarray, found: Values) -> np.ndarray:
    """The derivative of `worth` in every entry of a design, the load solved again `(designs, quantities + 1)`; of a hopeless one, of its least violation."""
    count, size = designs.shape[0], designs.shape[1] + 1
    inputs = np.column_stack([designs, np.log(found.x[:, BATCH])])
    rows = np.arange(count).repeat(size)
    with jax.enable_x64(True):
        points = take(lanes, rows), found.x[rows], inputs[rows], np.tile(np.eye(size), (count, 1))
        excess, worth, held = (leaf.reshape(count, size) for leaf in in_batches(_pushed, shared, points, STARTS * size))
        binds = (excess[:, :1] > -BOUND) & (held[:, -1:] > 0)
        slope = at_the_limit(worth[:, :-1], worth[:, -1:], held[:, :-1], held[:, -1:], binds)
        return np.where(excess[:, :1] <= BOUND, slope, -held[:, :-1])


def _scaled_lane(lane: Lane, factors: Any) -> Lane:
    return replace(lane, **{name: getattr(lane, name) * factors[QUANTITIES.index(of)] for name, of in _OF_LANE.items()})


def _at(shared: Shared, lane: Lane, settings: Array, inputs: Array) -> tuple[Array, Array]:
    """(ln of sessions per unit of cost, the violation of the constraint with least slack) of a design and the logarithm of its load `(quantities + 2,)`."""
    factors = jnp.exp(inputs[: len(QUANTITIES)])
    card = scaled(shared.own.system.accelerator, factors)
    own = shared.own._replace(system=replace(shared.own.system, accelerator=card))
    loaded = settings.at[RESIDENT].set(inputs[-2]).at[BATCH].set(jnp.exp(inputs[-1]))
    state = evaluate(own, _scaled_lane(lane, factors), shared.targets, loaded)
    return jnp.log(state.values["sessions_per_gpu_hour"]) - jnp.log(cost(shared.model, card)), jnp.max(state.broken[:-1])


@jax.jit
def _pushed(shared: Shared, lanes: Lane, x: Array, inputs: Array, directions: Array) -> tuple[Array, Array, Array]:
    """(violation, derivative of ln worth, derivative of the violation) of every point along its own direction.

    Forward mode: there are seven inputs, and reverse mode takes several times as long to compile.
    """

    def one(lane: Lane, settings: Array, at: Array, direction: Array) -> tuple[Array, Array, Array]:
        (_, excess), (worth, held) = jax.jvp(partial(_at, shared, lane, settings), (at,), (direction,))
        return excess, worth, held

    return jax.vmap(one)(lanes, x, inputs, directions)


def best_card(scenario: Scenario | None = None, per: str = "dollar", box: float = BOX, seed: int = 0, **fields: Any) -> Codesign:
    """The numbers of a card that serve most sessions per dollar or per joule, within a factor `box` of the accelerator's own.

    The plan is that of the scenario, `methods` included, with the better fate of idle caches; the price or power is the fitted one, in proportion so that the
    accelerator itself costs what the catalog says. Latency targets hold at every step. Raises `BadInput`; no card that serves is a value.
    """
    problem = _problem(scenario, per, box, fields)
    reference = named.best_case(problem)
    model_fit = fitted("price" if per == "dollar" else "power")
    device = problem.device(problem.checkpoints[0])
    paid = float(device.price_per_hour if per == "dollar" else device.power)
    with jax.enable_x64(True):
        model = jax.device_get(anchored(model_fit.model, device, paid))
    shared = Shared(given(problem, ()), problem.targets, model)
    choices = [next(choice for choice, _ in named.cases(problem) if choice.deployment == grouped) for grouped in named.groupings(problem)]
    count = max(STARTS // len(choices), 1) * len(choices)
    rows = np.arange(count) % len(choices)
    lanes = take(stacked(problem, choices), rows)
    x = np.repeat(reference.x[None], count, axis=0)
    free = _free(problem, device, box)
    rng = np.random.default_rng(seed)
    starts = rng.uniform(free[0], free[1], (count, len(QUANTITIES) + 1))
    own = np.array([place for place, row in enumerate(rows) if choices[row].deployment == reference.choice.deployment][:1])
    starts[own] = np.append(np.zeros(len(QUANTITIES)), reference.x[RESIDENT])
    value, design, row = _climbed(shared, lanes, x, starts, free)
    drawn = rng.uniform(free[0], free[1], (count * STEPS, len(QUANTITIES) + 1))
    tiled = np.arange(len(drawn)) % count
    random = values(shared, take(lanes, tiled), x[tiled], drawn).worth
    base = values(shared, take(lanes, own), x[own], starts[own]).worth[0]
    lane = take(lanes, np.array([row]))
    return _described(shared, per, model_fit, choices[rows[row]], lane, x[[row]], design, (float(base), value, float(random.max())), paid, len(drawn))


def _problem(scenario: Scenario | None, per: str, box: float, fields: dict[str, Any]) -> Problem:
    if per not in ("dollar", "joule"):
        raise unknown("per", per, ("dollar", "joule"))
    if not 1 < box <= 64:
        raise BadInput("box", box, "must be above 1 and at most 64")
    problem = resolve(Scenario.of(**((scenario.model_dump(exclude_unset=True) if scenario is not None else {}) | fields)))
    problem.require_known()
    device = problem.device(problem.checkpoints[0])
    if math.isnan(float(device.price_per_hour if per == "dollar" else device.power)):
        raise BadInput("accelerator", problem.accelerator.id, f"has no known {'price' if per == 'dollar' else 'power'}")
    if problem.scenario.head_scores is not None:
        raise BadInput("head_scores", problem.scenario.head_scores, "analyze and simulate take it; no search does yet")
    return problem


def _free(problem: Problem, device: Any, box: float) -> tuple[np.ndarray, np.ndarray]:
    """The least and the most of a design: unknown numbers stay as they are, and idle caches where the engine keeps them."""
    width = np.where(np.isfinite([float(getattr(device, name)) for name in QUANTITIES]), math.log(box), 0.0)
    return np.append(-width, 0.0), np.append(width, float(problem.keeps_idle_caches))


def _climbed(shared: Shared, lanes: Lane, x: np.ndarray, starts: np.ndarray, free: tuple[np.ndarray, np.ndarray]) -> tuple[float, np.ndarray, int]:
    """The best value that any step of any start came across: (value, design, its start)."""
    optimiser = optax.adam(optax.cosine_decay_schedule(RATE, STEPS, LAST / RATE))
    designs, state = starts, optimiser.init(starts)
    update = jax.jit(optimiser.update)
    best = (-np.inf, starts[0], 0)
    for _ in range(STEPS):
        found = values(shared, lanes, x, designs)
        row = int(np.nanargmax(found.worth))
        if found.worth[row] > best[0]:
            best = float(found.worth[row]), designs[row], row
        with jax.enable_x64(True):
            move, state = update(-np.nan_to_num(slopes(shared, lanes, designs, found)), state)
        designs = np.clip(designs + np.asarray(move, np.float64), *free)
    return best


def _described(
    shared: Shared,
    per: str,
    model_fit: CostFit,
    choice: Choice,
    lane: Lane,
    x: np.ndarray,
    design: np.ndarray,
    found: tuple[float, float, float],
    paid: float,
    evaluations: int,
) -> Codesign:
    count = len(QUANTITIES)
    moves = np.concatenate([np.zeros((1, count + 1)), -STEP * np.eye(count, count + 1), STEP * np.eye(count, count + 1)])
    tiled = np.zeros(len(moves), int)
    value, rate, broken, _ = values(shared, take(lane, tiled), x[tiled], design + moves)
    slope = np.where(value > HOPELESS, rate - rate[0], np.nan) / STEP
    card = shared.own.system.accelerator
    with jax.enable_x64(True):
        made = scaled(card, jnp.exp(jnp.asarray(design[:count])))
        part, hourly, own, new = jax.device_get((shares(shared.model, made), cost(shared.model, made), numbers(card), numbers(made)))
    scale = 1.0 if per == "dollar" else 1 / 3600  # sessions per hour and watt are per 3600 joules

    def natural(log_worth: float) -> float:
        return math.exp(log_worth) * scale if log_worth > HOPELESS else 0.0

    return Codesign(
        per=per,
        feasible=found[1] > HOPELESS,
        reference_worth=natural(found[0]),
        worth=natural(found[1]),
        random_worth=natural(found[2]),
        evaluations=evaluations,
        sessions_per_gpu_hour=math.exp(float(rate[0])) if found[1] > HOPELESS else 0.0,
        cost=float(hourly),
        reference_cost=paid,
        numbers={
            name: Number(float(own[i]), float(new[i]), float(-slope[1 + i]), float(slope[1 + count + i]), float(part[i]))
            for i, name in enumerate(QUANTITIES)
            if own[i] > 0
        },
        binding=tuple(name for name, excess in zip(NAMES[:-1], broken[0], strict=False) if excess > -0.01),
        park=choice.deployment.park,
        idle_resident=float(design[-1]),
        fit=model_fit,
    )
