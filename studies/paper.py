"""Every published number of Fu, arXiv 2405.08944, beside what the functions that plan a deployment make of the paper's inputs.

The paper counts K as 1,000 tokens, gives cache sizes in GiB, and mixes decimal and binary units elsewhere. Where a number needs such a mixture, or
follows from no formula, its row says so. Rows without a published number are this reproduction's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kvopt.inputs import profile
from kvopt.inputs.accelerator import read_accelerator
from kvopt.inputs.choice import MethodChoice
from kvopt.inputs.hf_config import read_model
from kvopt.inputs.quantities import parse_tokens
from kvopt.inputs.workload import read_workload
from kvopt.plots import write_figure
from objectives.serving import decode, group, kv_cache, prefill, switching
from objectives.serving.concurrency import concurrency
from objectives.types import Effects, Plan, Schedule, System, replace
from studies.paper_plot import figure
from studies.result import StudyResult

QUESTION = "Which published numbers of arXiv 2405.08944 follow from its formulas, and which do not?"
COLUMNS = ("quantity", "published", "computed", "unit", "error %", "verdict", "why", "as recorded")

GIB, PEBI = 2.0**30, 2.0**50
LENGTHS = {"4K": 4_000.0, "50K": 50_000.0, "100K": 100_000.0}
DECIMAL, BINARY = 34e9, 34 * GIB  # the two readings of "34B", and of its 68 GB of 16-bit weights
ROUND_BANDWIDTH = 2e12  # [bytes/s] behind the critical batch; the decode times need the data sheet's 2039e9
LINK = 20 * GIB  # [bytes/s] of PCIe behind the context switches
WIDTH = 4096.0  # in the attention term of the prefill; Yi-34B is 7168 wide
ROUNDS = 5  # questions per session
PUBLISHED_S = {"50K": (14.1, 9.8, 1.1), "4K": (0.89, 8.5, 0.1)}  # prefill, an answer, a context switch


@dataclass(frozen=True)
class Number:
    """A number as published and as computed, and what this study found when it was written."""

    quantity: str
    published: float | None  # None: ours alone
    computed: float
    unit: str
    recorded: float
    reproduced: bool | None = None  # as found
    step: float = 1.0  # its last published digit
    truncated: bool = False  # digits are cut off, not rounded
    at_least: bool = False  # published as "N+"
    why: str = ""

    @property
    def reproduces(self) -> bool | None:
        """Whether the computed number, written as the paper writes it, is the published one."""
        if self.published is None:
            return None
        if self.at_least:
            return self.computed >= self.published
        digits = self.computed / self.step
        return math.isclose((math.floor(digits) if self.truncated else round(digits)) * self.step, self.published, rel_tol=1e-9)

    @property
    def holds(self) -> bool:
        """Whether all is still as recorded."""
        return math.isclose(self.computed, self.recorded, rel_tol=5e-4) and self.reproduces == self.reproduced

    def row(self) -> dict[str, Any]:
        """The line of the table."""
        return {
            "quantity": self.quantity,
            "published": None if self.published is None else f"{self.published:g}{'+' if self.at_least else ''}",
            "computed": self.computed,
            "unit": self.unit,
            "error %": None if self.published is None or self.at_least else 100 * (self.computed / self.published - 1),
            "verdict": {True: "reproduces", False: "does not reproduce", None: "not published"}[self.reproduces],
            "why": self.why,
            "as recorded": "yes" if self.holds else f"NO: {self.recorded:g}",
        }


def run(out: Path | None = None, model: str = "yi-34b-200k", accelerator: str = "a100-80-sxm", answer: int | str | None = None) -> StudyResult:
    """All numbers, at peak efficiency. With another model, accelerator or answer [tokens] than the paper's they no longer hold, and `ok` says so.

    `out`: folder for the picture.
    """
    with jax.enable_x64(True):
        tokens = float(read_workload("paper-session").pytree().answer[0]) if answer is None else float(parse_tokens(answer, "answer"))
        example = Example(model, accelerator, tokens)
        found, spent = tuple(numbers(example)), sessions(example)
    failed = [number.quantity for number in found if not number.holds]
    notes = (
        "K is 1,000 tokens; cache sizes are in GiB and cut off rather than rounded; every peak is reached and communication is free",
        "published numbers are of the paper's text or of summaries of it; those that nothing reproduces are shown as such, beside our own",
        *([f"no longer as recorded: {', '.join(failed)}"] if failed else []),
    )
    rows = tuple(number.row() for number in found)
    if out is not None:
        write_figure(figure(rows, spent, ROUNDS, float(example.system.workload.think_s[0])), out, "paper")
    hidden = () if failed else ("as recorded",)
    return StudyResult(title=QUESTION, columns=COLUMNS, rows=rows, notes=notes, ok=not failed, footnotes="why", hidden=hidden)


@dataclass(frozen=True)
class Example:
    """The paper's example: a model on cards of one kind at peak efficiency."""

    model: str
    accelerator: str
    answer: float

    @cached_property
    def system(self) -> System:
        """The model as its config has it."""
        spec = read_model(self.model)
        device = replace(read_accelerator(self.accelerator).pytree(), host_bandwidth=np.float64(LINK), host_full_duplex=np.float64(0.0))
        return System(
            architecture=spec.architecture(),
            accelerator=device,
            efficiency=profile.peak(),
            checkpoint=spec.checkpoint("bf16"),
            workload=read_workload("paper-session").pytree(),
        )

    @cached_property
    def effects(self) -> Effects:
        """No compression."""
        return MethodChoice().effects()

    @cached_property
    def plan(self) -> Plan:
        """Everything kept at 16 bits."""
        return MethodChoice().bounds()[1]

    def rounded(self, parameters: float, width: float | None = None) -> System:
        """The model with all parameters in one round number, embeddings among them, and, where given, another width in its attention."""
        arch = replace(
            self.system.architecture,
            **{name: np.float64(parameters) for name in ("parameters", "active_parameters")},
            **{name: np.float64(0.0) for name in ("embedding_parameters", "head_parameters", "expert_parameters")},
        )
        if width is not None:
            arch = replace(arch, attention_flop=np.full_like(arch.attention_flop, 4 * width))  # 2 * (dk + dv) over all heads
        return replace(self.system, architecture=arch)

    def cache_bytes(self, tokens: float) -> float:
        """[bytes] of one session."""
        arch = self.system.architecture
        return float(kv_cache.session_bytes(arch, self.effects, kv_cache.cache(arch, self.plan, self.effects), jnp.asarray(tokens)))

    def answer_s(self, tokens: float) -> float:
        """[s] to decode one answer for one user, with 68e9 bytes of weights."""
        system, schedule = self.rounded(DECIMAL), one_group(1)
        costs = group.step_costs(system, schedule)
        kv_s = decode.kv_step_s(system.architecture, self.plan, self.effects, schedule, costs, jnp.asarray(tokens))
        return self.answer * float(decode.decode_step_s(system.architecture, costs, jnp.asarray(1.0), kv_s))

    def switch_s(self, tokens: float) -> float:
        """[s] to send one user's cache out and bring another's in."""
        moved = kv_cache.cache(self.system.architecture, self.plan, self.effects, "moved")
        return float(switching.switch_s(self.system, self.effects, moved, one_group(1), jnp.asarray(tokens), jnp.asarray(tokens))[1])

    def sessions(self, tokens: float, cards: int, parameters: float) -> int:
        """Whole sessions that fit beside the weights."""
        return math.floor(float(concurrency(self.rounded(parameters), self.plan, self.effects, one_group(cards), jnp.asarray(tokens))))

    def prefill_flop(self, tokens: float, parameters: float, width: float) -> float:
        """[FLOP] of a prompt."""
        arch = self.rounded(parameters, width).architecture
        linear, attention = prefill.prompt_flop(arch, prefill.prompt_shares(arch, self.plan, self.effects), jnp.zeros(()), jnp.asarray(tokens))
        return float(linear + attention)

    def prefill_s(self, tokens: float, system: System) -> float:
        """[s] of a prompt in one piece on one card."""
        return float(prefill.prefill_s(system, self.plan, self.effects, one_group(1), jnp.asarray(tokens)))


def one_group(cards: int) -> Schedule:
    """A group of this many cards, nothing else in use."""
    ones = ("pipeline_parallel", "replicas", "context_parallel", "attention_data_parallel", "batch", "max_sequences", "chunk")
    zeros = ("expert_parallel", "prefill_groups", "idle_resident", "prefix_cache_tokens")
    return Schedule(**dict.fromkeys(ones, 1.0), **dict.fromkeys(zeros, 0.0), idle_parked=1.0, tensor_parallel=float(cards))


def numbers(e: Example) -> Iterator[Number]:
    """Everything published, challenge by challenge, and what follows from it."""
    yield from _cache(e)
    yield from _prefill(e)
    yield from _decode(e)
    yield from _switching(e)
    yield from _concurrency(e)
    yield from _sessions(e)


def _cache(e: Example) -> Iterator[Number]:
    per_token = e.cache_bytes(1.0)
    yield Number("KV cache per token", None, per_token, "bytes", 245_760)
    yield Number("KV cache, 100K", 22.8, e.cache_bytes(LENGTHS["100K"]) / GIB, "GiB", 22.888, True, 0.1, truncated=True)
    yield Number("KV cache, 4K", 0.91, e.cache_bytes(LENGTHS["4K"]) / GIB, "GiB", 0.9155, True, 0.01, truncated=True)
    yield Number("KV cache, 50K", 11, e.cache_bytes(LENGTHS["50K"]) / GIB, "GiB", 11.444, True)


def _prefill(e: Example) -> Iterator[Number]:
    middle, short, a100 = LENGTHS["50K"], LENGTHS["4K"], e.system.accelerator
    binary = e.prefill_flop(middle, BINARY, WIDTH) / PEBI
    early = round(binary, 1) * 1024 / (float(a100.peak_flops) / 1e12)
    yield Number("prefill FLOP, 50K", 4.33, binary, "2^50 FLOP", 4.3341, True, 0.01, why="s (2 N + 2 L s 4096) with N = 34 * 2^30")
    because = "the same expression in decimal units; 4096 is not the model's width"
    yield Number("prefill, 50K", 14.1, e.prefill_s(middle, e.rounded(DECIMAL, WIDTH)), "s", 14.836, False, 0.1, why=because)
    yield Number("prefill, 4K", 0.89, e.prefill_s(short, e.rounded(DECIMAL, WIDTH)), "s", 0.8972, False, 0.01, why=f"{because}; 0.89 if cut off")
    mixed = "only with that FLOP rounded to 4.3, P as 2^50 and T as 2^40 beside 312 T of the data sheet"
    yield Number("prefill, 50K, mixed units", 14.1, early, "s", 14.113, True, 0.1, why=mixed)
    true = "causal attention with the model's true width"
    yield Number("prefill, 50K, true width", 14.1, e.prefill_s(middle, e.rounded(DECIMAL)), "s", 17.785, False, 0.1, why=f"{true}, N = 34e9")
    own = f"{true} and its own parameter count, the output head once"
    yield Number("prefill, 50K, as kvopt counts", 14.1, e.prefill_s(middle, e.system), "s", 17.616, False, 0.1, why=own)
    yield Number("prefill, 4K, as kvopt counts", 0.89, e.prefill_s(short, e.system), "s", 0.90238, False, 0.01, why=own)


def _decode(e: Example) -> Iterator[Number]:
    card = replace(e.system.accelerator, memory_bandwidth=np.float64(ROUND_BANDWIDTH))
    critical = float(card.peak_flops / card.memory_bandwidth)
    yield Number("critical batch", 156, critical, "tokens", 156, True, why="312 TFLOP/s over 2 TB/s; with the data sheet's 2.039 TB/s it is 153")
    because = "250 tokens, 68e9 bytes of weights, 2039 GB/s: another bandwidth than behind the critical batch"
    yield Number("an answer, 50K", 9.8, e.answer_s(LENGTHS["50K"]), "s", 9.8441, True, 0.1, why=because)
    yield Number("an answer, 4K", 8.5, e.answer_s(LENGTHS["4K"]), "s", 8.4580, True, 0.1, why=because)


def _switching(e: Example) -> Iterator[Number]:
    because = "cache of both users in GiB over 20 GiB/s"
    yield Number("context switch, 50K", 1.1, e.switch_s(LENGTHS["50K"]), "s", 1.1444, True, 0.1, why=because)
    yield Number("context switch, 4K", 0.1, e.switch_s(LENGTHS["4K"]), "s", 0.09155, True, 0.1, why=because)


def _concurrency(e: Example) -> Iterator[Number]:
    exact, loose = "68e9 bytes of weights in cards of 80 GiB", "68 GB of weights read as GiB"
    cases = [
        ("50K", 1, 1.0, False, (1, True), (1, True)),
        ("4K", 1, 20.0, False, (18, False), (13, False)),
        ("50K", 2, None, False, (8, None), (8, None)),
        ("4K", 2, 100.0, True, (105, True), (100, True)),
        ("100K", 2, 5.0, False, (4, False), (4, False)),
    ]
    for length, cards, published, at_least, *expected in cases:
        for parameters, reading, (recorded, reproduced) in zip((DECIMAL, BINARY), (exact, loose), expected, strict=True):
            why = reading if reproduced is not False else f"{reading}; follows from no formula{', published as about 20' if published == 20 else ''}"
            name = f"sessions in {cards} card{'s' if cards > 1 else ''}, {length}"
            computed = e.sessions(LENGTHS[length], cards, parameters)
            yield Number(name, published, computed, "sessions", recorded, reproduced, at_least=at_least, why=why)


def sessions(e: Example) -> dict[str, dict[str, float]]:
    """[s] of prefill, answers and context switches of a whole session for one user at a time, of the published parts and of the computed ones."""
    found = {}
    for length, (first, answer, switch) in PUBLISHED_S.items():
        tokens = LENGTHS[length]
        ours = (e.prefill_s(tokens, e.system), e.answer_s(tokens), e.switch_s(tokens))
        for whose, (prefill_s, answer_s, switch_s) in {"published": (first, answer, switch), "as kvopt counts": ours}.items():
            found[f"{length},\n{whose}"] = {"prefill": prefill_s, "answers": ROUNDS * answer_s, "context switches": ROUNDS * switch_s}
    return found


def _sessions(e: Example) -> Iterator[Number]:
    """One user at a time, every think time overlapped: one prefill, then each round an answer and a context switch."""
    for length, recorded, own in (("50K", 68.6, 72.558), ("4K", 43.89, 43.651)):
        first, *each = PUBLISHED_S[length]
        busy_s = first + ROUNDS * sum(each)
        tokens = LENGTHS[length]
        ours_s = e.prefill_s(tokens, e.system) + ROUNDS * (e.answer_s(tokens) + e.switch_s(tokens))
        parts = "of the published parts, one user at a time with think time overlapped"
        yield Number(f"a session's busy time, {length}", None, busy_s, "s", recorded, why=parts)
        yield Number(f"sessions an hour, {length}", None, 3600 / busy_s, "1/h", 3600 / recorded, why=parts)
        yield Number(f"a session's busy time, {length}, as kvopt counts", None, ours_s, "s", own, why="the same of the computed parts")
