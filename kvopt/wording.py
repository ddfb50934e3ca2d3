"""How plans and numbers are said to a person: names, units and rounding, the same in tables and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

UNKNOWN = "unknown"
KEPT = {
    "layer_keep": "layers",
    "head_keep": "heads",
    "token_keep": "tokens",
    "key_rank": "key rank",
    "value_rank": "value rank",
    "prefill_keep": "prefill attention",
}
"""The shares of a plan, as people name what they keep a share of."""

GLOSSARY = {
    "TTFT": "time to first token: from sending a prompt to the first token of its answer, waiting included.",
    "TPOT": "time per output token: of the tokens after the first, from one to the next. The first is TTFT's and not counted.",
    "ISL, OSL": "input and output sequence length: tokens of a prompt and of its answer.",
    "Users": "sessions that one GPU carries when each just meets its targets, think time included.",
    "Requests in flight": "answers in prefill or decoding at one moment, on all GPUs; users who think are not among them.",
    "Accuracy kept": "score over the score of the uncompressed model, on the task family asked for. Its lower end holds at the confidence asked for.",
    "Engine-ready": "the engine can be told to run it as it is installed; a research library has it in code of its own.",
    "Prefill ceiling": "sessions per GPU-hour if prefill alone took time.",
}
"""What the words of a report mean, each said once."""


@dataclass(frozen=True)
class Quantity:
    """One quantity of a result: its name, its unit on an axis, how many of these one SI unit is, and how a number of it is said (in SI units)."""

    label: str
    unit: str
    per_si: float
    say: Callable[[float], str]

    def __call__(self, value: float | None) -> str:
        """The number with its unit; `unknown` for `None`."""
        return said(self.say, value)

    @property
    def axis(self) -> str:
        """The name with its unit, for an axis or the head of a column."""
        return f"{self.label} [{self.unit}]" if self.unit else self.label


def said(say: Callable[[float], str], value: float | None) -> str:
    """A number in words; `unknown` for `None`."""
    return UNKNOWN if value is None or not math.isfinite(value) else say(value)


def number(value: float) -> str:
    """Three digits, thousands separated, whole from 100 on.

    >>> [number(value) for value in (0.04786, 7.3104, 51.06, 1278.4)]
    ['0.0479', '7.31', '51.1', '1,278']
    """
    if value == 0 or abs(value) < 1e-9:
        return "0"
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    if abs(value) < 1e-3:
        return f"{value:.2e}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def tokens(value: float) -> str:
    """Tokens on an axis: `4K`, `128K`, `1M`, in thousands."""
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}K" if value >= 1e3 else f"{value:g}"


def count(value: float) -> str:
    """A whole number, thousands separated."""
    return f"{value:,.0f}"


def bytes_(value: float) -> str:
    """Bytes in the largest binary unit that leaves about a whole or more."""
    for unit, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(value) >= 0.9 * size:
            return f"{number(value / size)} {unit}"
    return f"{round(value)} B"


def seconds(value: float) -> str:
    """Seconds; milliseconds below one second."""
    if abs(value) < 1e-6:
        return "0 s"
    return f"{number(value * 1000)} ms" if abs(value) < 1 else f"{number(value)} s"


def percent(value: float) -> str:
    """A share in percent, one decimal."""
    return f"{100 * value:.1f} %"


def dollars(value: float) -> str:
    """US dollars, three digits."""
    return f"${number(value)}"


def joules(value: float) -> str:
    """Energy in kJ."""
    return f"{number(value / 1000)} kJ"


_BYTES = ("GiB", 2.0**-30, bytes_)
QUANTITIES = {
    "sessions_per_gpu_hour": Quantity("Sessions per GPU-hour", "", 1, number),
    "users_per_gpu": Quantity("Users per GPU", "", 1, number),
    "output_tokens_per_gpu_s": Quantity("Output tokens per GPU", "tokens/s", 1, lambda value: f"{number(value)}/s"),
    "requests_in_flight": Quantity("Requests in flight, all GPUs", "", 1, number),
    "cost_per_session_usd": Quantity("Cost per session", "USD", 1, dollars),
    "energy_per_session_j": Quantity("Energy per session", "kJ", 1e-3, joules),
    "ttft_s": Quantity("Time to first token", "s", 1, seconds),
    "tpot_s": Quantity("Time per output token", "ms", 1e3, seconds),
    "accuracy_retained": Quantity("Accuracy kept", "%", 100, percent),
    "accuracy_lower": Quantity("Accuracy kept, lower end", "%", 100, percent),
    "prefill_ceiling_per_gpu_hour": Quantity("Prefill ceiling", "sessions per GPU-hour", 1, number),
    "concurrency": Quantity("Concurrency, all GPUs", "sessions", 1, count),
    "prefill_s": Quantity("Prefill", "s", 1, seconds),
    "decode_s_per_token": Quantity("Decoding one token, alone", "ms", 1e3, seconds),
    "context_switch_s": Quantity("Context switch", "s", 1, seconds),
    "kv_bytes_per_token": Quantity("KV cache per token", "KiB", 2.0**-10, bytes_),
    "kv_bytes_per_session": Quantity("KV cache per session", *_BYTES),
    "weight_bytes": Quantity("Weights", *_BYTES),
    "kv_pool_bytes": Quantity("Pool for caches of a group", *_BYTES),
    "decode_step_s": Quantity("Decode step under load", "ms", 1e3, seconds),
}
"""Metrics by their key in a result."""

CONSTRAINTS = {
    "hbm": Quantity("HBM for caches, per group of GPUs", *_BYTES),
    "hbm_peak": Quantity("HBM for the longest session", *_BYTES),
    "host_memory": Quantity("Host memory for parked caches", *_BYTES),
    "host_link": Quantity("Host link, busy", "%", 100, percent),
    "prefill_utilisation": Quantity("Prefill, busy", "%", 100, percent),
    "max_sequences": Quantity("Requests in flight, per group", "", 1, number),
    "ttft_s": Quantity("Time to first token", "s", 1, seconds),
    "tpot_s": Quantity("Time per output token", "ms", 1e3, seconds),
    "accuracy": Quantity("Accuracy kept, lower end", "%", 100, percent),
}
"""Constraints by their name in a result."""


def times(value: float | None, base: float | None) -> str:
    """How often `base` goes into `value`, e.g. `1.51x`; `unknown` where there is nothing to compare with."""
    return f"{value / base:.2f}x" if value is not None and base else UNKNOWN


def methods(plan: Mapping[str, Any]) -> str:
    """The methods of a plan, e.g. `duoattention + fp8`; `no compression` without any."""
    return " + ".join(plan["methods"]) or "no compression"


def labelled(plan: Mapping[str, Any]) -> str:
    """The methods of a plan, each with where it runs, e.g. `fp8 (vllm: --kv-cache-dtype fp8)`; without labels where a plan holds none."""
    used = [setting for setting in plan.get("settings", ()) if setting["method"] in plan["methods"]]
    return " + ".join(f"{setting['method']} ({label(setting, plan['engine'])})" for setting in used) or methods(plan)


def label(setting: Mapping[str, Any], engine: str) -> str:
    """Where one setting runs: what tells the engine, the research library, or which other engine has it."""
    told, remark = setting["runs_in"], setting["remark"]
    if setting["where"] == "engine-ready":
        return remark or f"{engine}: {told}"
    library = f"{setting['where']}: {told}" if told else setting["where"]
    return f"{library}; {remark}" if remark and setting["engine"] is None else library


def precision(plan: Mapping[str, Any]) -> str:
    """The precision of the cache, e.g. `8-bit KV` or `4-bit K, 2-bit V`."""
    key, value = plan["key_bits"], plan["value_bits"]
    return f"{key:g}-bit KV" if key == value else f"{key:g}-bit K, {value:g}-bit V"


def keeps(plan: Mapping[str, Any]) -> str:
    """The shares that a plan keeps where it does not keep all, e.g. `keeps 47 % of heads`; empty where it keeps all."""
    parts = [f"{100 * plan[name]:.0f} % of {what}" for name, what in KEPT.items() if plan[name] < 1]
    return f"keeps {', '.join(parts)}" if parts else ""


def grouping(plan: Mapping[str, Any]) -> str:
    """How the accelerators are grouped, e.g. `TP2 x 1` or `TP4 PP2 EP x 3, 1 of them prefill only`."""
    names = {"tp": "TP", "pp": "PP", "dcp": "DCP", "attention_dp": "attention DP"}
    parts = [f"{short}{plan[name]}" for name, short in names.items() if name == "tp" or plan[name] > 1]
    parts += ["EP"] if plan["expert_parallel"] else []
    split = f", {plan['prefill_groups']} of them prefill only" if plan["prefill_groups"] else ""
    return f"{' '.join(parts)} x {plan['replicas']}{split}"


def idle(plan: Mapping[str, Any], thinking: float | None) -> str:
    """What becomes of the caches of users who think; `thinking`: how many there are per GPU."""
    if not thinking:
        return "no idle caches"
    out = "parked in host memory" if plan["idle"] == "park" else "dropped and recomputed"
    stay = plan["idle_resident"]
    if stay >= 1:
        return "idle caches stay in HBM"
    return f"idle caches {out}" if stay <= 0 else f"idle caches: {100 * stay:.0f} % stay in HBM, the rest {out}"


def question(scenario: Mapping[str, Any]) -> str:
    """The scenario in one line: model, accelerator x N, context, engine."""
    return f"{scenario['model']}, {scenario['accelerator']} x {scenario['gpus']}, {scenario['context']:,.0f} tokens of context, {scenario['engine']}"
