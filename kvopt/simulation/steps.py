"""What a step costs and what a cache takes, for one plan on one group: the functions of `objectives.serving`, tabulated over blocks of the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from objectives.serving import decode, prefill, session, switching
from objectives.serving.concurrency import kv_pool_bytes
from objectives.serving.kv_cache import session_bytes
from objectives.types import Effects, Plan, Schedule, System


@dataclass(frozen=True)
class Part:
    """What of one prompt a step carries [tokens]."""

    start: int
    new: int
    completes: bool


@dataclass(frozen=True)
class Steps:
    """Times in s, sizes in bytes over the group. Lists by block count start with 0 blocks, those by batch with nobody decoding."""

    block: int  # tokens
    stored: list[int]  # by blocks: a session at rest or decoding
    filling: list[int]  # by blocks: the same while its prompt is prefilled
    moved: list[int]  # by blocks: what goes over the host link
    kv_s: list[float]  # by blocks: what a request adds to a step, taken in the middle of its last block
    attention: list[float]  # by blocks: FLOP of a prompt's attention up to there
    bare_s: list[float]  # by batch: a step of decodes without their caches
    kv_slope: list[float]  # by batch: seconds of a step per second of caches
    token_flop: float
    prompt_flop: float  # the output head, once per prompt
    state: int  # bytes of a session that no token adds
    read_efficiency: float
    mixed: Callable[[Any], Any]  # (tokens, linear FLOP, attention FLOP, bytes read again, decodes, their caches' s) -> s
    link: float  # [bytes/s] one way
    duplex: bool
    exposed: float  # share of a switch in which the group does nothing
    append_only: bool
    server_s: float
    pool: float  # bytes for caches
    host: float  # bytes of host memory for parked caches

    def blocks(self, tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-tokens // self.block)

    def seconds(self, batch: int, kv_s: float, parts: Sequence[Part]) -> float:
        """[s] of one step of `batch` decodes whose caches take `kv_s`, beside parts of prompts."""
        if not parts:
            return self.bare_s[batch] + self.kv_slope[batch] * kv_s
        tokens = sum(part.new for part in parts)
        linear = self.token_flop * tokens + self.prompt_flop * sum(part.completes for part in parts)
        attention = sum(self._attention(part.start + part.new) - self._attention(part.start) for part in parts)
        again = sum(self.filling[self.blocks(part.start)] for part in parts if part.start) / self.read_efficiency
        return float(self.mixed(np.array([tokens, linear, attention, again, batch, kv_s])))

    def _attention(self, tokens: int) -> float:
        whole, rest = divmod(tokens, self.block)
        below = self.attention[whole]
        return below + (self.attention[whole + 1] - below) * rest / self.block if rest else below


@partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # evaluated once: compiling is what takes long
def _tables(system: System, plan: Plan, effects: Effects, schedule: Schedule, tokens: Any, middle: Any, batch: Any) -> dict[str, Any]:
    arch, have = system.architecture, session.sums(system, plan, effects, schedule)
    nothing = jnp.zeros_like(tokens)
    bare = decode.decode_step_s(arch, have.costs, batch, jnp.zeros_like(batch))
    linear, _ = prefill.prompt_flop(arch, have.shares, jnp.zeros(2), jnp.arange(2.0))
    return {
        "stored": session_bytes(arch, effects, have.stored, tokens),
        "filling": session_bytes(arch, effects, have.filling, tokens),
        "moved": session_bytes(arch, effects, have.moved, tokens),
        "kv_s": decode.kv_step_s(arch, plan, effects, schedule, have.costs, middle),
        "attention": prefill.prompt_flop(arch, have.shares, nothing, tokens)[1],
        "bare_s": bare,
        "kv_slope": decode.decode_step_s(arch, have.costs, batch, 1 / jnp.maximum(batch, 1.0)) - bare,
        "linear": linear,
        "costs": have.costs,
        "pool": kv_pool_bytes(system, schedule),
        "link": switching.link_bandwidth(system, schedule),
    }


def _mixed(arch: Any, costs: Any, given: Any) -> Any:
    tokens, linear, attention, again, batch, kv_s = (given[i] for i in range(6))
    return prefill.mixed_step_s(arch, costs, prefill.Chunk(tokens, linear, attention, again), batch, kv_s)


def _padded(count: int) -> int:
    """The power of two above, so that few shapes are compiled."""
    return int(2 ** np.ceil(np.log2(max(count, 2))))


def tabulate(system: System, plan: Plan, effects: Effects, schedule: Schedule, longest: int, most: int, block: int) -> Steps:
    """The tables for contexts up to `longest` tokens and up to `most` requests in flight, in double precision."""
    tokens = np.arange(_padded(longest // block + 3), dtype=float) * block
    with jax.enable_x64(True):
        middle = np.maximum(tokens - block / 2, 0)
        found = jax.device_get(_tables(system, plan, effects, schedule, tokens, middle, np.arange(_padded(most + 1), dtype=float)))
        mixed = jax.jit(partial(_mixed, system.architecture, found["costs"])).lower(np.zeros(6)).compile()
    sizes = {name: np.ceil(found[name]).astype(np.int64).tolist() for name in ("stored", "filling", "moved")}
    state = sizes["stored"][0]
    lists = {name: [0, *size[1:]] for name, size in sizes.items()}
    link, accelerator, efficiency = float(found["link"]), system.accelerator, system.efficiency
    return Steps(
        block=block,
        **lists,
        **{name: found[name].tolist() for name in ("kv_s", "attention", "bare_s", "kv_slope")},
        token_flop=float(found["linear"][1] - found["linear"][0]),
        prompt_flop=float(found["linear"][0]),
        state=state,
        read_efficiency=float(effects.read_efficiency),
        mixed=mixed,
        link=1.0 if np.isnan(link) else link,
        duplex=bool(accelerator.host_full_duplex > 0.5),
        exposed=float(efficiency.exposed_switch),
        append_only=bool(efficiency.append_only > 0.5),
        server_s=float(efficiency.server_s),
        pool=float(found["pool"]),
        host=float(accelerator.host_memory_bytes * schedule.tensor_parallel),
    )
