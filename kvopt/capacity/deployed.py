"""What one deployment holds, as its engine computes it: pool, blocks, tokens and concurrency, with an interval and the second check."""

from __future__ import annotations

from dataclasses import dataclass

from kvopt.capacity.constants import generation, version_of
from kvopt.capacity.deployment import Deployment, on_card
from kvopt.capacity.formats import format_of
from kvopt.capacity.interval import pool_quantile
from kvopt.capacity.layout import Layout, layout
from kvopt.capacity.pool import Ledger, Outside, ledger, outside
from kvopt.capacity.towers import tower_of
from kvopt.inputs.accelerator import AcceleratorSpec
from kvopt.inputs.model import ModelSpec

INTERVAL = 0.9  # two-sided


@dataclass(frozen=True)
class Held:
    """What a pool of one size holds."""

    pool_bytes: float  # per rank
    blocks: int
    tokens: int  # as the engine prints them
    concurrency: float  # requests of max_model_len


@dataclass(frozen=True)
class Capacity:
    """A deployment's caches: the middle of the prediction, and the two ends of its 90 % interval."""

    deployment: Deployment
    layout: Layout
    ledger: Ledger
    middle: Held
    lower: Held
    upper: Held
    outside: Outside | None

    @property
    def pool_bytes(self) -> float:
        """[bytes] on the fullest rank."""
        return self.middle.pool_bytes

    @property
    def blocks(self) -> int:
        """Whole blocks."""
        return self.middle.blocks

    @property
    def tokens(self) -> int:
        """Tokens as this generation prints them."""
        return self.middle.tokens

    @property
    def concurrency(self) -> float:
        """Requests of max_model_len, as this generation prints it."""
        return self.middle.concurrency

    @property
    def warning(self) -> str | None:
        """Where the pool may not be usable."""
        return self.outside.warning if self.outside else None

    def at(self, confidence: float) -> Held:
        """What the deployment holds at least, with this confidence; 0.5 is the middle."""
        return held(self.deployment, self.layout, pool_quantile(self.deployment.generation.spread, self.ledger, 1 - confidence))


def held(deployment: Deployment, blocks: Layout, pool_bytes: float) -> Held:
    """What a pool of this size on the fullest rank holds, as the generation prints it.

    vLLM until 0.20: blocks / groups x block size; from 0.21: int(concurrency x max_model_len).
    """
    pool = max(pool_bytes, 0.0)
    count, length = blocks.blocks(pool), max(deployment.max_model_len, 1)
    concurrency = blocks.concurrency(count, length)
    by_request = deployment.generation.prints == "concurrency" and blocks.mixed
    return Held(pool, count, int(concurrency * length) if by_request else blocks.tokens(count), concurrency)


def of(asked: Deployment) -> Capacity:
    """The capacity of a deployment, the engine's defaults where it leaves settings out. Raises `BadInput`."""
    deployment = asked.with_defaults()
    blocks, found = layout(deployment), ledger(deployment)
    spread, tail = deployment.generation.spread, (1 - INTERVAL) / 2
    middle, lower, upper = (held(deployment, blocks, pool_quantile(spread, found, share)) for share in (0.5, tail, 1 - tail))
    return Capacity(deployment, blocks, found, middle, lower, upper, outside(deployment))


def deployed(
    model: ModelSpec,
    accelerator: AcceleratorSpec,
    *,
    engine: str = "vllm",
    version: str = "",
    tp: int = 1,
    pp: int = 1,
    dp: int = 1,
    dcp: int = 1,
    utilisation: float = 0.0,
    max_sequences: int = 0,
    chunk: int = 0,
    max_model_len: int = 0,
    kv_format: str = "auto",
    weights: str | None = None,
    block_tokens: int = 0,
) -> Capacity:
    """The capacity of a model on an accelerator; settings left at 0 are the engine's defaults, `version` its newest generation. Raises `BadInput`."""
    format_ = weights or model.weight_format
    return of(
        Deployment(
            model=model,
            generation=generation(engine, version),
            version=version_of(version),
            tp=tp, pp=pp, dp=dp, dcp=dcp, utilisation=utilisation, max_sequences=max_sequences, chunk=chunk, max_model_len=max_model_len,
            kv_format=format_of(kv_format), weights=format_, experts_only=model.other_format == "bf16" and weights is None,
            block_tokens=block_tokens, tower=tower_of(model.id), **on_card(accelerator),
        )
    )  # fmt: skip
