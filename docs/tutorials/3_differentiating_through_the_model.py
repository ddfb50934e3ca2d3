# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3. Differentiating through the model
#
# Under the command lie pure JAX functions on small pytrees: `objectives.serving.session.serve` says what a deployment gives, the functions of
# `objectives.goals` what of it one may want. So they can be differentiated, batched and compiled, and put together into objectives of one's own.
#
# Four pytrees go in: a `System` (the model's architecture, the accelerator, what share of its peaks an engine reaches, the checkpoint, the sessions), a `Plan`
# (what of the cache is kept, in how many bits), the `Effects` of the methods that do that, and a `Schedule` (how the GPUs are grouped, how many decodes are in
# flight). All are in SI units.

# %%
import jax
import jax.numpy as jnp
import optax

from kvopt import cli
from kvopt.inputs.choice import MethodChoice
from kvopt.inputs.method import load
from kvopt.inputs.scenario import Scenario
from kvopt.problem import resolve
from objectives import goals
from objectives.serving.session import at_batch, serve
from objectives.types import Plan, Schedule, replace

cli.keep_compiled()  # as the command does: keeps compiled programs on disk, in KVOPT_CACHE or the user's cache folder

problem = resolve(Scenario.of(model="llama-3.1-8b", accelerator="h100-sxm", gpus=1, context="32k", turns=3))
system, targets = problem.system(), problem.targets
effects = MethodChoice.of(load("fp8")).effects()
whole = dict.fromkeys(("layer_keep", "head_keep", "token_keep", "key_rank", "value_rank", "prefill_keep"), 1.0)
one_group = dict.fromkeys(("tensor_parallel", "pipeline_parallel", "replicas", "context_parallel", "attention_data_parallel"), 1.0)
resident = {"idle_resident": 1.0, "idle_parked": 0.0, "prefix_cache_tokens": 0.0, "prefill_groups": 0.0, "expert_parallel": 0.0}
schedule = Schedule(**one_group, **resident, batch=8.0, max_sequences=64.0, chunk=2048.0)

# %% [markdown]
# ## A rate and its gradient
#
# Sessions per GPU-hour with eight decodes in flight, as a function of a dictionary of inputs: the bits of keys and values, and two numbers of the card. The
# gradient has the same shape as the inputs. Elasticities (percent per percent) make numbers of different units comparable.

# %%


def served(inputs):
    """The service at some bits, bandwidth [bytes/s] and FLOP/s."""
    card = replace(system.accelerator, memory_bandwidth=inputs["bandwidth"], peak_flops=inputs["flops"], peak_flops_16bit=inputs["flops"])
    plan = Plan(**whole, key_bits=inputs["bits"], value_bits=inputs["bits"])
    return serve(replace(system, accelerator=card), plan, effects, schedule)


def rate(inputs):
    """[sessions per GPU-hour]."""
    return goals.sessions_per_gpu_hour(served(inputs))


h100 = system.accelerator
inputs = {"bits": 8.0, "bandwidth": float(h100.memory_bandwidth), "flops": float(h100.peak_flops_16bit)}
value, slope = jax.jit(jax.value_and_grad(rate))(inputs)
elasticity = {name: float(slope[name] * inputs[name] / value) for name in inputs}
print(f"{value:.0f} sessions per GPU-hour; percent for one percent more of", {name: round(one, 3) for name, one in elasticity.items()})

assert elasticity["bits"] < 0 < elasticity["bandwidth"]  # a smaller cache and a faster memory serve more
assert 0 < elasticity["flops"] < 1

# %% [markdown]
# ## Is the gradient right?
#
# Against a central difference. JAX computes in 32 bits unless told otherwise, so the step is one percent: a smaller one would drown in rounding.

# %%
compiled = jax.jit(rate)
for name, at in inputs.items():
    ends = [compiled({**inputs, name: at * factor}) for factor in (0.99, 1.01)]
    difference = float(ends[1] - ends[0]) / (0.02 * at)
    print(f"{name}: gradient {float(slope[name]):.6g}, difference {difference:.6g}")
    assert abs(difference - float(slope[name])) <= 0.01 * abs(difference)

# %% [markdown]
# ## A grid at once
#
# `vmap` turns the function of one point into one of many. Here bits against the bandwidth of the card, 5 by 40 points in one call. What a bit buys depends on
# the card: the slower its memory, the more a small cache is worth.

# %%
bits = jnp.array([2.0, 4.0, 6.0, 8.0, 12.0])
factors = jnp.geomspace(0.25, 4.0, 40)


def at(b, factor):
    """The rate with so many bits on a card with so many times the bandwidth."""
    return rate({**inputs, "bits": b, "bandwidth": inputs["bandwidth"] * factor})


grid = jax.jit(jax.vmap(jax.vmap(at, in_axes=(None, 0)), in_axes=(0, None)))(bits, factors)
assert grid.shape == (5, 40)
assert bool(jnp.all(jnp.diff(grid, axis=0) < 0))  # more bits: fewer sessions
assert bool(jnp.all(jnp.diff(grid, axis=1) > 0))  # more bandwidth: more sessions
gain = grid[1] / grid[3]  # 4 bits over 8
print(f"4 bits instead of 8 serve {gain[0]:.2f} times as many at a quarter of the bandwidth, {gain[-1]:.2f} times at four times of it")
assert gain[0] > gain[-1] > 1

# %% [markdown]
# ## Where the rate is not the question: the load
#
# At a fixed number of decodes in flight memory has no price: it only bounds how many there can be. `Service` says what memory holds (`memory_used`, of
# `memory_pool`), and `goals` how long people wait. The largest load within the limits is where an optimizer stands; `kvopt.optimize` finds it exactly. Here the
# caches of those who think stay in memory all the same (`idle_resident` is 1), so it is full early: what an optimizer would do is park some of them.

# %%


@jax.jit
@jax.vmap
def loads(batch):
    """Rate, users, share of memory and time per token with so many decodes in flight."""
    plan = Plan(**whole, key_bits=8.0, value_bits=8.0)
    found = serve(system, plan, effects, at_batch(schedule, batch))
    users = goals.users_per_gpu(found, system.workload, targets)
    return goals.sessions_per_gpu_hour(found), users, found.memory_used / found.memory_pool, goals.tpot_s(found, targets)


batches = jnp.array([1.0, 4.0, 8.0, 16.0, 32.0])
for batch, sessions, users, full, tpot in zip(batches, *loads(batches), strict=True):
    print(
        f"{batch:4.0f} in flight: {sessions:6.0f} sessions/GPU-hour, {users:4.0f} users, memory {100 * full:4.0f} % full, {1000 * tpot:.0f} ms a token"
    )
assert bool(jnp.all(jnp.diff(jnp.stack(loads(batches)), axis=1) > 0))  # all of them rise with the load

# %% [markdown]
# ## An objective of one's own
#
# What is the cheapest hypothetical card that serves 1,000 sessions an hour within the latency targets? Variables are the logarithms of its FLOP/s, bandwidth
# and memory over the H100's, and of the load; the bits are 8, and every idle cache stays in memory. What each number costs is this tutorial's assumption: a
# third of the price is fixed and the three have equal shares of the rest, so that a card with half of everything costs two thirds.
#
# Limits enter as penalties on how far they are broken, on a log scale. A penalty is exact where its weight is above the limit's multiplier, so the answer
# stands at the limits and not a little beyond.

# %%
WANTED = 1000.0  # [sessions per GPU-hour]
PLAN = Plan(**whole, key_bits=8.0, value_bits=8.0)


def card(x):
    """The H100 with its numbers times the exponential of `x["flops"]`, `x["bandwidth"]` and `x["memory"]`."""
    flops = jnp.exp(x["flops"])
    changed = {"peak_flops": h100.peak_flops * flops, "peak_flops_16bit": h100.peak_flops_16bit * flops}
    changed["memory_bandwidth"] = h100.memory_bandwidth * jnp.exp(x["bandwidth"])
    return replace(h100, **changed, memory_bytes=h100.memory_bytes * jnp.exp(x["memory"]))


def price(x):
    """The price over the H100's: a third fixed, the rest shared by the three numbers."""
    return (1 + (2 / 3) * sum(jnp.exp(x[name]) for name in ("flops", "bandwidth", "memory"))) / 3


def excesses(x):
    """How far each limit is broken, as a logarithm; negative where it holds."""
    found = serve(replace(system, accelerator=card(x)), PLAN, effects, at_batch(schedule, jnp.exp(x["load"])))
    limits = {
        "rate": WANTED / goals.sessions_per_gpu_hour(found),
        "memory": found.memory_used / jnp.maximum(found.memory_pool, 1e9),
        "tpot": goals.tpot_s(found, targets) / targets.tpot_s,
        "ttft": goals.ttft_s(found, system.workload, targets) / targets.ttft_s,
    }
    return {name: jnp.log(share) for name, share in limits.items()}


def loss(x):
    """The price with penalties."""
    return jnp.log(price(x)) + 3.0 * sum(jnp.maximum(excess, 0.0) for excess in excesses(x).values())


optimiser = optax.adam(optax.cosine_decay_schedule(0.03, 800))


@jax.jit
def descend(x):
    """Where Adam comes to, and the loss on the way."""

    def step(carry, _):
        x, state = carry
        now, slope = jax.value_and_grad(loss)(x)
        updates, state = optimiser.update(slope, state)
        return (optax.apply_updates(x, updates), state), now

    (x, _), losses = jax.lax.scan(step, (x, optimiser.init(x)), None, length=800)
    return x, losses


start = {"flops": jnp.array(0.0), "bandwidth": jnp.array(0.0), "memory": jnp.array(0.0), "load": jnp.log(8.0)}
found, losses = descend(start)
factor = {name: round(float(jnp.exp(found[name])), 3) for name in ("flops", "bandwidth", "memory")}
broken = {name: round(float(excess), 3) for name, excess in excesses(found).items()}
print(f"the card: {factor} of an H100's, {float(price(found)):.2f} of its price, {float(jnp.exp(found['load'])):.1f} decodes in flight")
print("limits broken by (negative: not reached):", broken)

assert max(broken.values()) < 0.02  # all limits hold, to two percent
assert abs(broken["rate"]) < 0.02  # and the rate is no higher than wanted: anything more would cost
assert float(price(found)) < float(price(start))

# %% [markdown]
# No number of the card can be made smaller by itself without breaking a limit: that is what the answer being at its limits means, and easy to check.

# %%
for name in ("flops", "bandwidth", "memory"):
    smaller = {**found, name: found[name] - 0.05}
    worst = max(excesses(smaller).items(), key=lambda one: float(one[1]))
    print(f"5 % less {name}: {worst[0]} broken by {100 * float(worst[1]):.1f} %")
    assert float(worst[1]) > max(broken.values())

# %% [markdown]
# `kvopt.codesign.best_card` asks this of the catalog's prices, with the best plan and load at every step; `kvopt.inverse.least` asks for one number at a time;
# `kvopt sensitivity` gives the price of every input of a whole answer, constraints and all.
