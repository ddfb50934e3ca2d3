"""What the device that JAX uses reaches, measured in a minute: products, reading memory, reading a cache, copies to the host and back, launching.

Each figure is the best of several runs after one that compiles. Sizes grow until a run is long enough to time, so that a laptop and a data-centre card
both finish. No flag of JAX is set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LONG_S = 0.02  # a run that takes this long is timed well enough
BATCH_S = 0.005  # on devices with a queue, runs are launched together until they take this long
MOST_RUNS = 50
TOKENS = (16, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
HEADS, GROUP, DIM, CONTEXT = 8, 4, 128, 4096  # the cache that is read: Llama-3.1-8B's layer at 4,096 tokens
DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class Product:
    """A matrix product of `tokens` rows by a square of weights."""

    dtype: str
    tokens: int
    width: int
    seconds: float

    @property
    def tflops(self) -> float:
        """[TFLOP/s]."""
        return 2 * self.tokens * self.width**2 / self.seconds / 1e12

    @property
    def shape(self) -> str:
        """As sources name it."""
        return f"{self.dtype} {self.tokens} x {self.width} by {self.width} x {self.width}"


@dataclass(frozen=True)
class Rate:
    """Bytes over seconds, and what was moved."""

    gbs: float  # [GB/s], decimal
    shape: str


@dataclass(frozen=True)
class Probe:
    """Everything measured."""

    products: tuple[Product, ...]
    read: Rate
    attention: Rate
    to_device: Rate
    from_device: Rate
    launch_s: float  # [s] of a step that computes nothing

    def fastest(self, *dtypes: str) -> Product:
        """The fastest product of these formats."""
        return max((product for product in self.products if product.dtype in dtypes), key=lambda product: product.tflops)

    @property
    def ramp_tokens(self) -> float | None:
        """[tokens] by which products are rounded up: seconds over tokens is a line, and this is where it meets zero, less the launch.

        Of the sizes that are bound by arithmetic; None where they are fewer than three.
        """
        dtype = self.products[0].dtype
        element = jnp.dtype(dtype).itemsize
        balance = self.fastest(dtype).tflops * 1e3 / self.read.gbs * element / 2  # tokens at which reading the weights takes as long as multiplying
        ladder = [product for product in self.products if product.dtype == dtype and product.tokens > balance]
        if len(ladder) < 3:
            return None
        tokens = np.array([product.tokens for product in ladder], dtype=np.float64)
        seconds = np.array([product.seconds for product in ladder])
        slope, start = np.polyfit(tokens, seconds - self.launch_s, 1, w=1 / seconds)
        return float(max(start / slope, 0.0)) if slope > 0 else None


def probe(seconds: float = 45.0, largest_bytes: float = 2.0**30) -> Probe:
    """Measures the device that new arrays go to. About `seconds` long, compiling not counted; no array is larger than `largest_bytes`."""
    device = default_device()
    share = seconds / 20  # a figure's part: about fifteen are measured, some on several sizes
    launch = jax.jit(lambda x: x + 1)
    nothing = jnp.zeros(())
    launch_s = best(lambda: launch(nothing), share / 10, queue=False)
    products = tuple(_products(share, largest_bytes))
    read = _read(share, largest_bytes)
    attention = _attention(device.platform == "cpu", share, largest_bytes)
    to_device, from_device = _memory_copy(share, largest_bytes) if device.platform == "cpu" else _link(device, share, largest_bytes)
    return Probe(products, read, attention, to_device, from_device, launch_s)


def default_device() -> Any:
    """The device that new arrays go to."""
    return next(iter(jnp.zeros(()).devices()))


def best(run: Callable[[], Any], seconds: float, queue: bool | None = None) -> float:
    """[s] of the fastest call of at least three, within about `seconds`; the first, which compiles, is not counted.

    On a device with a queue, calls are launched together until they take a while, so that launching is hidden behind computing, as in a server.
    """
    jax.block_until_ready(run())
    first = _timed(run, 1)
    queued = default_device().platform != "cpu" if queue is None else queue
    calls = min(max(round(BATCH_S / max(first, 1e-7)), 1), 100) if queued else 1
    ends, found = time.perf_counter() + seconds, [first]
    while len(found) < 3 or (time.perf_counter() < ends and len(found) < MOST_RUNS):
        found.append(_timed(run, calls))
    return min(found)


def _timed(run: Callable[[], Any], calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        last = run()
    jax.block_until_ready(last)
    return (time.perf_counter() - began) / calls


def _products(share: float, largest_bytes: float) -> Iterator[Product]:
    """A ladder of tokens in the first format that the device has, and the largest product of the others."""
    multiply = jax.jit(jnp.matmul)

    def product(dtype: str, tokens: int, width: int) -> Product:
        x, w = jnp.ones((tokens, width), dtype), jnp.ones((width, width), dtype)
        return Product(dtype, tokens, width, best(partial(multiply, x, w), share / 4))

    width = 256
    while product(DTYPES[0], width, width).seconds < LONG_S and width < 16384 and (2 * width) ** 2 * 4 <= largest_bytes:
        width *= 2
    yield from (product(DTYPES[0], tokens, width) for tokens in TOKENS if tokens < width)
    yield from (product(dtype, width, width) for dtype in DTYPES)


def _read(share: float, largest_bytes: float) -> Rate:
    """The fastest of three ways to read an array much larger than caches: sums and maxima of rows, and a product with a vector."""
    x, size = _array(largest_bytes)
    vector = jnp.ones(x.shape[1], jnp.float32)
    ways = (lambda x: jnp.sum(x, axis=1), lambda x: jnp.max(x, axis=1), lambda x: x @ vector)
    seconds = min(best(partial(jax.jit(way), x), share) for way in ways)
    return Rate(x.nbytes / seconds / 1e9, f"{size} of float32 read once")


def _array(largest_bytes: float) -> tuple[Any, str]:
    """As large as allowed, in rows of 8,192."""
    rows = max(int(largest_bytes) // (4 * 8192), 1)
    return jnp.ones((rows, 8192), jnp.float32), f"{rows * 4 * 8192 / 2**20:,.6g} MiB"


def _attention(cpu: bool, share: float, largest_bytes: float) -> Rate:
    """One decode step's attention over a cache: scores, softmax and weighted values, in plain JAX. Engines' own kernels read no slower.

    On a CPU head by head and in 32 bit, where XLA is several times faster than on all heads at once or in 16 bit.
    """
    dtype = "float32" if cpu else "bfloat16"
    row = 2 * HEADS * DIM * jnp.dtype(dtype).itemsize  # bytes of one token
    context = int(min(CONTEXT, max(largest_bytes // row, 16)))
    sessions = max(int(largest_bytes / 2 // (row * context)), 1)
    keys = jnp.ones((sessions * HEADS, context, DIM), dtype)
    values, queries = keys + 1, jnp.ones((sessions * HEADS, GROUP, DIM), dtype)

    def head(qkv: Any) -> Any:
        q, k, v = qkv
        return jax.nn.softmax((q @ jnp.swapaxes(k, -1, -2)).astype(jnp.float32), axis=-1).astype(q.dtype) @ v

    step = jax.jit(partial(jax.lax.map, head) if cpu else head)
    seconds = best(partial(step, (queries, keys, values)), share)
    return Rate(
        2 * keys.nbytes / seconds / 1e9, f"{dtype} cache of {sessions} sessions x {context} tokens x {HEADS} heads x {DIM}, {GROUP} queries a head"
    )


def _memory_copy(share: float, largest_bytes: float) -> tuple[Rate, Rate]:
    """On a CPU device and host are one: a plain copy of memory."""
    source = np.ones(max(int(largest_bytes) // 8, 1), np.float32)
    target = np.empty_like(source)
    seconds = best(lambda: np.copyto(target, source), share, queue=False)
    rate = Rate(source.nbytes / seconds / 1e9, f"{source.nbytes / 2**20:,.6g} MiB copied within host memory")
    return rate, rate


def _link(device: Any, share: float, largest_bytes: float) -> tuple[Rate, Rate]:
    """Host to device and back, through page-locked memory where JAX offers it, as engines park caches."""
    here = jax.sharding.SingleDeviceSharding(device)
    pinned = "pinned_host" in {memory.kind for memory in device.addressable_memories()}
    on_device, size = _array(largest_bytes / 2)
    if pinned:
        there = jax.sharding.SingleDeviceSharding(device, memory_kind="pinned_host")
        on_host = jax.device_put(on_device, there)
        back = best(lambda: jax.device_put(on_device, there), share, queue=False)
    else:
        on_host = np.ones(on_device.shape, np.float32)
        copy = jax.jit(lambda x: x + 0)  # an array keeps what was fetched of it: each run fetches a new one
        fresh = best(lambda: copy(on_device), share / 4, queue=False)
        back = max(best(lambda: np.asarray(copy(on_device)), share, queue=False) - fresh, 1e-9)
    out = best(lambda: jax.device_put(on_host, here), share, queue=False)
    kind = "page-locked" if pinned else "pageable"
    return Rate(on_device.nbytes / out / 1e9, f"{size}, {kind}"), Rate(on_device.nbytes / back / 1e9, f"{size}, {kind}")
