"""vLLM's own benchmark of several plans in one go: the two JSON files of `vllm bench sweep serve`, and the command that runs them.

The sweep tries every server with every load; a name that both are given (`served_model_name`) links each plan to its own load (vllm/benchmarks/sweep/serve.py).
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from kvopt.errors import BadInput
from kvopt.export import remarks, vllm
from kvopt.export.commands import script
from kvopt.export.exported import Exported
from kvopt.export.sessions import Load, load
from kvopt.export.settings import Settings
from kvopt.results import Result

MOST_PLANS = 5
LEAST_SESSIONS = 4  # sessions for each request in flight: the ends of a run, when it fills and drains, stay short
READY_S = 1800  # [s] that a server may take to load a large model; the sweep's default of 300 is short
SERVE, BENCH, SCRIPT = "vllm-bench-serve.json", "vllm-bench-load.json", "vllm-bench.sh"


def top(result: Result) -> list[Mapping[str, Any]]:
    """The plans of a front that vLLM can run, by sessions per GPU-hour, the recommended first, at most `MOST_PLANS`. Raises `BadInput` without one."""
    points = [point for point in result.data["points"] if point["front"] == "deployable" and point["plan"].get("engine") == "vllm"]
    ranked = sorted(points, key=lambda point: -(point["metrics"]["sessions_per_gpu_hour"] or 0.0))
    answer = result.data.get("answer") or {}
    first = [answer] if answer.get("plan") and answer["plan"].get("engine") == "vllm" else []
    found = [*first, *(point for point in ranked if not first or point["plan"] != answer["plan"])][:MOST_PLANS]
    if not found:
        raise BadInput("engine", "vllm-bench", "the front has no plan that vLLM runs")
    return found


def export(found: Settings) -> Exported:
    """One plan and its load. Raises `BadInput` for a plan that one `vllm serve` command cannot start."""
    return export_all([found])


def export_all(plans: Sequence[Settings]) -> Exported:
    """Plans of one model, each with its own load. Plans that one `vllm serve` command cannot start are left out, and said to be.

    Raises `BadInput` where none is left.
    """
    serve: dict[str, Any] = {}
    bench: dict[str, Any] = {}
    notes: list[str] = []
    said: dict[str, list[str]] = {}  # what cannot be told, and of which plans
    left_out: list[str] = []
    for index, plan in enumerate(plans):
        name = f"plan-{index + 1}"
        for line in vllm.lost(plan):
            said.setdefault(line, []).append(name)
        gpus = plan.gpus * (plan.replicas if vllm.in_one(plan) else 1)
        asked = load(plan, gpus)
        why = _left_out(plan, asked, plans[0])
        if why or asked is None:
            said.setdefault(f"left out of the sweep: {why}", []).append(name)
            left_out.append(str(why))
            continue
        serve[name] = {"served_model_name": name, **{key.replace("-", "_"): value for key, value in vllm.flags(plan).items()}}
        bench[name] = {"served_model_name": name, **_requests(plan, asked)}
        notes.append(f"{name}: {'; '.join([remarks.heading(plan)[0].rstrip('.'), *vllm.printed(plan), *_expected(plan, asked, gpus)])}")
    if not serve:
        raise BadInput("engine", "vllm-bench", "; ".join(dict.fromkeys(left_out)))
    first, cannot = plans[0], [f"{', '.join(names)}: {line}" for line, names in said.items()]
    notes += [
        *_about_load(load(first, first.gpus)),
        "kvopt calibrate reads the JSON results: what was measured then takes the place of what was fitted",
    ]
    body = _command(first)
    about = ["The plans of a front against their predictions: vllm bench sweep serve.", *notes, *(f"Cannot be told: {line}" for line in cannot)]
    files = {SCRIPT: script(about, body), SERVE: json.dumps(serve, indent=2) + "\n", BENCH: json.dumps(bench, indent=2) + "\n"}
    return Exported("vllm-bench", files, tuple(notes), tuple(cannot))


def _left_out(plan: Settings, asked: Load | None, first: Settings) -> str | None:
    if asked is None:
        return "the plan serves nothing" if plan.problem else f"the scenario can no longer be read ({plan.unread})"
    if plan.prefill_servers:
        return "separate prefill groups need several servers and a proxy"
    if "kv-cache-dtype-skip-layers" in vllm.flags(plan):
        return "the sweep passes one value for each setting, and --kv-cache-dtype-skip-layers takes several"
    if vllm.model(plan) != vllm.model(first):
        return "it serves another checkpoint than the first plan"
    return None


def _requests(plan: Settings, asked: Load) -> dict[str, Any]:
    """The load of one plan: turns arrive at its rate. With several turns, prompts come back as often as a session asks."""
    sessions = math.ceil(LEAST_SESSIONS * plan.sequences)
    common = {"request_rate": float(f"{asked.turns_per_s:.4g}"), "max_concurrency": plan.sequences * (plan.replicas if vllm.in_one(plan) else 1)}
    if asked.turns > 1:
        prefix = {"prefix_len": asked.prompt, "suffix_len": asked.growth, "num_prefixes": sessions, "output_len": asked.answer}
        names = {f"prefix_repetition_{name}": value for name, value in prefix.items()}
        return {**common, "dataset_name": "prefix_repetition", **names, "num_prompts": sessions * asked.turns}
    own = {"random_prefix_len": asked.shared_prefix, "random_input_len": asked.input_tokens - asked.shared_prefix, "random_output_len": asked.answer}
    return {**common, "dataset_name": "random", **own, "num_prompts": sessions}


def _expected(plan: Settings, asked: Load, gpus: int) -> list[str]:
    metrics = plan.point["metrics"]
    parts = [
        f"TTFT {metrics['ttft_s']:.4g} s",
        f"TPOT {1000 * metrics['tpot_s']:.4g} ms",
        f"{metrics['output_tokens_per_gpu_s'] * gpus:,.4g} output tokens/s",
    ]
    return [f"expected at {asked.turns_per_s:.3g} requests/s on {gpus} GPUs: {', '.join(parts)}"]


def _about_load(asked: Load | None) -> list[str]:
    if asked is None:
        return []
    lines = []
    if asked.turns > 1:
        lines.append(
            f"each prompt of {asked.prompt:,} tokens comes {asked.turns} times, in random order, with {asked.growth} tokens behind it: a session's first "
            "question and those that follow, without their order and think times, so caches come back sooner or later than users would"
        )
    if asked.varied:
        lines.append("all requests have the mean session's lengths: the workload's sessions differ")
    return lines


def _command(first: Settings) -> str:
    """The one command that runs every plan against its load."""
    scenario, model = first.scenario, vllm.model(first)
    named = "$MODEL" if model == remarks.VARIABLE else model
    goodput = [f"{name}:{1000 * scenario[key]:g}" for name, key in (("ttft", "ttft_s"), ("tpot", "tpot_s")) if scenario.get(key)]
    bench = [
        "vllm",
        "bench",
        "serve",
        "--model",
        named,
        "--ignore-eos",
        "--metric-percentiles",
        "50,90,95,99",
        "--seed",
        str(scenario.get("seed", 0)),
    ]
    bench += ["--goodput", *goodput] if goodput else []
    quote = (lambda text: f'"{text}"') if named == "$MODEL" else shlex.quote
    lines = [
        "vllm bench sweep serve",
        f"--serve-cmd {quote(f'vllm serve {named}')}",
        f"--bench-cmd {quote(' '.join(bench))}",
        f"--serve-params {SERVE}",
        f"--bench-params {BENCH}",
        "--link-vars served_model_name=served_model_name",
        f"--server-ready-timeout {READY_S}",
        "--output-dir results",
    ]
    return remarks.check(model) + " \\\n  ".join(lines) + "\n"
