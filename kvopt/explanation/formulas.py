"""Every metric of a plan as its formula, its terms with their numbers, and which of them dominates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvopt import wording
from kvopt.metrics import plain
from objectives.accuracy.composition import CORRELATION
from objectives.goals import Targets
from objectives.types import System

STEP = {
    "weights_read": "reading the weights",
    "linear": "linear layers",
    "attention": "attention",
    "rounding": "products rounded up to tiles",
    "kv_read": "reading the cache",
    "overhead": "overhead of layers and requests",
    "exchange": "exchange between GPUs",
}
SPENT = {
    "prompt": "prefill of the prompt",
    "follow_up": "prefill of later questions",
    "recompute": "caches computed again",
    "decode_weights": "decoding: weights",
    "decode_kv": "decoding: reading caches",
    "decode_overhead": "decoding: overheads and exchange",
    "switching": "context switching",
    "idle": "idle",
}
WAITED = {
    "wait": "waiting for other prompts and for room",
    "prefill": "prefill, alone",
    "recompute": "cache computed again",
    "beside": "what decodes in the same steps add",
    "fetch": "fetching a parked cache",
    "rounding": "last step filled up, handover",
    "server": "before the engine",
}
LOST = {
    "layer": "layers",
    "head": "heads",
    "token": "tokens",
    "rank": "width",
    "prefill": "sparse prefill",
    "bits": "precision",
    "interactions": "dimensions together",
}


@dataclass(frozen=True)
class Formula:
    """One metric: its value is made of its terms, their sum where `adds` says so."""

    metric: str  # key of `metrics`
    formula: str
    terms: Mapping[str, float]
    unit: str  # of the terms: bytes, s, GPU-seconds, ...; where they do not add up, each says its own after a comma
    inputs: tuple[str, ...]  # keys of `kvopt.assumptions`
    adds: bool = True
    note: str = ""

    def row(self, value: float | None) -> dict[str, Any]:
        """The formula as plain values: with the metric's value in SI units, each term's share, and the largest."""
        known = {name: term for name, term in self.terms.items() if math.isfinite(term)}
        whole = sum(abs(term) for term in known.values()) if self.adds else 0.0
        terms = [
            {"name": name, "value": plain(term), "unit": self.unit, "share": abs(term) / whole if whole and name in known else None}
            for name, term in self.terms.items()
        ]
        if not self.adds:
            terms = [{**term, **dict(zip(("name", "unit"), str(term["name"]).rsplit(", ", 1), strict=True))} for term in terms]
        largest = max(known, key=lambda name: abs(known[name])) if whole else None
        return {
            "metric": self.metric,
            "value": value,
            "formula": self.formula,
            "terms": terms,
            "dominates": largest,
            "inputs": list(self.inputs),
            "note": self.note or None,
        }


def formulas(found: Mapping[str, Any], metrics: Mapping[str, Any], plan: Mapping[str, Any], system: System, targets: Targets) -> list[Formula]:
    """The formulas of a plan from its parts (`kvopt.explanation.parts`), metrics and settings, and what is given."""
    return [*_sizes(found), *_memory(found, plan, system), *_steps(found), *_service(found, metrics, targets), *_judged(found, metrics, plan, system)]


def _sizes(found: Mapping[str, Any]) -> list[Formula]:
    sizes, whole = found["sizes"], sum(found["uncompressed"].values())
    per_kind = {f"{name}, bytes": size for name, size in found["uncompressed"].items()}
    return [
        Formula(
            "kv_bytes_per_token",
            "sum over the layers of KV heads x (K width + V width) x 2 bytes, times what the plan leaves of it",
            {**per_kind, "left by the plan, share": sizes["token"] / whole if whole else math.nan},
            "",
            ("layers", "kv_heads"),
            adds=False,
            note="of the next token at this context: windows that are full and states add nothing",
        ),
        Formula(
            "kv_bytes_per_session",
            "what all layers hold of the prompt, and states",
            {"entries of tokens": sizes["session"] - sizes["state"], "states": sizes["state"]},
            "bytes",
            ("prompt", "layers", "kv_heads"),
        ),
    ]


def _memory(found: Mapping[str, Any], plan: Mapping[str, Any], system: System) -> list[Formula]:
    sizes, ranks, efficiency = found["sizes"], plan["tp"], system.efficiency
    usable = ranks * float(efficiency.memory_fraction * system.accelerator.memory_bytes)
    slots = (plan["replicas"] - plan["prefill_groups"]) * plan["pp"]
    pool = {"memory the engine may use": usable, "weights": -sizes["weights_on_slot"], "engine's reserve": -ranks * sizes["reserve"]}
    share, of_free = float(efficiency.pool_fraction), "tp x share of memory x memory - weights / pp - tp x reserve"
    if share < 1:
        of_free = f"{share:g} x ({of_free})"
        pool["left to the engine"] = (share - 1) * sum(pool.values())
    return [
        Formula("weight_bytes", "parameters x bytes of one, embeddings in 16 bit", {"weights": sizes["weights"]}, "bytes", ("parameters",)),
        Formula(
            "kv_pool_bytes",
            of_free,
            pool,
            "bytes",
            ("memory", "memory_share", "parameters"),
            note=f"of one group of {ranks} GPUs; at the confidence asked for no more than {wording.bytes_(sizes['pool_sure'])} is counted on",
        ),
        Formula(
            "concurrency",
            "groups x whole sessions in a pool",
            {"groups, ": slots, "pool of a group, bytes": sizes["pool"], "one session on its group, bytes": sizes["on_group"]},
            "",
            ("memory", "prompt"),
            adds=False,
        ),
        Formula(
            "context_switch_s",
            "cache out or cache in, the longer, over the host link; one after the other where it carries one at a time",
            {"cache coming in, bytes": sizes["moved"], "host link of a group, bytes/s": found["link"]},
            "",
            ("host_link", "host_link_reached", "prompt"),
            adds=False,
            note="only what is new since the last parking goes out, but at peak fidelity all of it",
        ),
    ]


def _steps(found: Mapping[str, Any]) -> list[Formula]:
    shared = ("peak", "mfu", "bandwidth", "mbu", "active_parameters")
    hidden = "of the weights' reading and multiplying the shorter counts only for what the longer one does not hide"
    decode = (*shared, "mbu_kv", "decode_layer_s", "parallel_layer_s", "sequence_s", "link", "allreduce")
    work = found["prefill_flop"]
    return [
        Formula(
            "prefill_s",
            "FLOP of linear layers / (tp x peak x MFU) + FLOP of attention / (tp x 16-bit peak x its MFU) + overheads",
            _named(STEP, found["prefill"]),
            "s",
            (*shared, "peak_16bit", "mfu_attention", "prefill_layer_s", "link", "allreduce", "prompt"),
            note=f"{work['linear'] / 1e12:,.0f} TFLOP in linear layers and {work['attention'] / 1e12:,.0f} in attention; {hidden}",
        ),
        Formula(
            "decode_s_per_token",
            "weights / (tp x bandwidth x MBU) + cache / (tp x bandwidth x MBU of the cache) + overheads",
            _named(STEP, found["decode"]),
            "s",
            (*decode, "prompt"),
            note=f"{wording.bytes_(found['decode_kv_bytes'])} of cache read for one token; {hidden}",
        ),
        Formula(
            "decode_step_s",
            "the same for all requests of a step",
            _named(STEP, found["step"]),
            "s",
            decode,
            note=f"a token sees {found['seen']:.3g} requests in its step, its own among them",
        ),
    ]


def _service(found: Mapping[str, Any], metrics: Mapping[str, Any], targets: Targets) -> list[Formula]:
    spent, step = _named(SPENT, found["session"]), _named(STEP, found["step"])
    waits = found["waits"]
    first = sum(waits["first"].values()) >= sum(waits["follow_up"].values())
    waited = _named(WAITED, waits["first" if first else "follow_up"])
    lasting = {
        "first tokens at their target": found["turns"] * float(targets.ttft_s),
        "answers at their target": found["answered"] * float(targets.tpot_s),
        "thinking": found["thinking_s"],
    }
    tokens = {**step, "prompts carried in the same steps": found["tpot"] - sum(step.values())}
    return [
        Formula(
            "sessions_per_gpu_hour",
            "3,600 s / GPU-seconds of one session",
            spent,
            "GPU-seconds",
            ("prompt", "turns", "question", "answer", "peak", "mfu", "bandwidth", "mbu", "mbu_kv"),
        ),
        Formula(
            "prefill_ceiling_per_gpu_hour",
            "3,600 s / GPU-seconds of prefill, none of it beside decodes and nothing computed twice",
            _named(SPENT, found["ceiling"]),
            "GPU-seconds",
            ("prompt", "turns", "question", "peak", "mfu"),
        ),
        Formula(
            "users_per_gpu",
            "sessions per GPU-second x how long a session lasts when each answer just meets its targets",
            lasting,
            "s",
            ("turns", "answer", "think_s", "ttft_target", "tpot_target"),
        ),
        Formula(
            "ttft_s",
            "wait + prefill + what decodes beside it add" if first else "wait + fetching or computing the cache + prefill of the question",
            {**waited, **_beyond(metrics["ttft_s"], waited)},
            "s",
            ("prompt", "peak", "mfu", "server_s", "ttft_target"),
            note="of the first question, which waits longest" if first else "of later questions, which wait longest",
        ),
        Formula(
            "tpot_s",
            "mean step while decoding, the first token excluded",
            {**tokens, **_beyond(metrics["tpot_s"], tokens)},
            "s",
            ("answer", "turns", "bandwidth", "mbu", "mbu_kv", "tpot_target"),
        ),
    ]


def _judged(found: Mapping[str, Any], metrics: Mapping[str, Any], plan: Mapping[str, Any], system: System) -> list[Formula]:
    middle, edge = found["losses"]["middle"], found["losses"]["edge"]
    own = {"checkpoint": -math.log(plan["weights_retained"])} if plan["weights_retained"] < 1 else {}
    nothing = {} if any(middle.values()) or own else {"no compression": 0.0}
    rows = [
        Formula(
            "accuracy_retained",
            "exp(-sum of the log losses), the checkpoint's own among them",
            {**{said: middle[name] for name, said in LOST.items() if middle[name]}, **own, **nothing},
            "log loss",
            ("accuracy",),
            note="losses are read from the pooled fit of published measurements: kvopt catalog methods NAME",
        ),
        Formula(
            "accuracy_lower",
            f"the same, with what each may lose beyond its median added as spreads that have {CORRELATION:g} in common",
            {**{said: edge[name] for name, said in LOST.items() if edge[name]}, **own, **nothing},
            "log loss",
            ("accuracy", "confidence"),
            note="each dimension at its own lower end: together they need not all be there",
        ),
    ]
    rate, price, power = metrics["sessions_per_gpu_hour"], float(system.accelerator.price_per_hour), float(system.accelerator.power)
    served = {"sessions per GPU-hour, ": rate or math.nan}
    if rate and math.isfinite(price):
        terms = {"price of a GPU, USD/h": price, **served}
        rows.append(Formula("cost_per_session_usd", "price / sessions per GPU-hour", terms, "", ("price",), adds=False))
    if rate and math.isfinite(power):
        terms = {"board power, W": power, **served}
        rows.append(Formula("energy_per_session_j", "board power x 3,600 s / sessions per GPU-hour", terms, "", ("power",), adds=False))
    return rows


def _beyond(value: float | None, mean: Mapping[str, float]) -> dict[str, float]:
    """What a percentile adds to the mean."""
    more = (value or math.nan) - sum(mean.values())
    return {"from the mean to the percentile": more} if more > 1e-6 * abs(value or 0.0) else {}


def _named(names: Mapping[str, str], terms: Mapping[str, float]) -> dict[str, float]:
    """Terms by what they are, in the order of the names; those that are nothing left out."""
    return {said: terms[name] for name, said in names.items() if abs(terms.get(name, 0.0)) > 1e-12}
