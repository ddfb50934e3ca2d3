"""What an answer takes for given, as plain rows: the accelerator, the speed an engine reaches on it, the model, the sessions, each with its source."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from kvopt.accuracy import posterior
from kvopt.accuracy.publish import FITTED
from kvopt.inputs import profile
from kvopt.inputs.hierarchy import PARAMETERS, narrowing
from kvopt.inputs.profile import BENCHMARK_ONLY, HOST_LINK_SOURCE, Profile
from kvopt.inputs.sourced import Sourced
from kvopt.problem import Problem

THEORY = "the theory of arXiv 2405.08944: every peak reached, no overhead"
PEAK = "share_of_every_peak"
SESSION = {
    "prompt": ("prompt before the first question (ISL)", "tokens"),
    "turns": ("questions and answers in a session", ""),
    "question": ("a question", "tokens"),
    "answer": ("an answer (OSL)", "tokens"),
    "think_s": ("between an answer and the next question", "s"),
    "shared_prefix": ("prompt that other sessions share", "tokens"),
}
Row = dict[str, Any]


def assumptions(problem: Problem) -> list[Row]:
    """Every given number that an answer depends on most: `{about, name, value, unit, spread_percent, tag, source}`, grouped by `about`.

    `value`: a number or a word, null where unknown; `tag`: measured, published, derived or assumed; `spread_percent`: one standard deviation, null where
    there is none. No NaN in it.
    """
    parts = (_accelerator(problem), _speed(problem), _engine(problem), _model(problem), _sessions(problem), _accuracy(problem))
    return [row for part in parts for row in part]


def _row(about: str, name: str, value: Any, unit: str, tag: str, source: str, spread: float | None = None, key: str | None = None) -> Row:
    if isinstance(value, float):
        value = float(value) if math.isfinite(value) else None
    return {"key": key, "about": about, "name": name, "value": value, "unit": unit, "spread_percent": spread, "tag": tag, "source": source}


def _stated(about: str, name: str, number: Sourced[Any] | None, unit: str, key: str | None = None) -> Row:
    if number is None:
        return _row(about, name, None, unit, "assumed", "not known: what needs it is null", key=key)
    return _row(about, name, number.value, unit, number.tag, number.source, key=key)


def _accelerator(problem: Problem) -> Iterator[Row]:
    card, about = problem.accelerator, f"accelerator: {problem.accelerator.name}"
    weights = problem.checkpoints[0].format
    memory = card.logged_bytes or card.memory if problem.scenario.fidelity == "calibrated" else card.memory
    yield _stated(about, "memory", memory, "bytes", key="memory")
    yield _stated(about, "memory bandwidth", card.memory_bandwidth_gbs, "GB/s", key="bandwidth")
    yield _stated(about, f"dense peak with {weights} weights", card.peak(weights), "TFLOP/s", key="peak")
    yield _stated(about, "dense 16-bit peak", card.peak_16bit, "TFLOP/s", key="peak_16bit")
    yield _stated(about, f"link to its peers, one way{_named(card.scaleup_link)}", card.scaleup, "GB/s", key="link")
    yield _stated(about, f"host link, one way{_named(card.host_link)}", card.host_gbs, "GB/s", key="host_link")
    if problem.scenario.host_memory is None:
        yield _stated(about, "host memory for each", card.host_memory, "GB")
    else:
        yield _row(about, "host memory for each", problem.scenario.host_memory, "GB", "assumed", "asked for")
    yield _stated(about, "board power", card.tdp_w, "W", key="power")
    yield _stated(about, "price", card.usd_per_h, "USD/h", key="price")


def _named(link: str) -> str:
    return f" ({link})" if link else ""


def _speed(problem: Problem) -> Iterator[Row]:
    found = problem.profile
    if found is None:
        yield _row("speed: peak", "share of every peak", 1.0, "share", "assumed", THEORY, key=PEAK)
        return
    about, fit = f"speed: {found.id}", profile.fitted()
    group = fit.groups.get(found.id)
    rests = {
        "model": "measured with this model",
        "group": "measured with other models",
        "none": "not measured here: from its class, engine and format",
    }
    own = {} if problem.accelerator.efficiency is None else dict(problem.accelerator.efficiency)
    source = f"fit of {fit.source}" if group is None else f"fit of {group.rows} rows here, {_sources(group.sources)}, among {fit.source}"
    yield _row(about, "what it rests on", rests[found.evidence], "", "derived", source)
    for name, figure in found.figures.items():
        if name in BENCHMARK_ONLY or ("expert" in name and not problem.model.routed):
            continue
        yield _figure(about, name, found, own, source, figure.value, figure.log_sd)
    yield _row(about, "host link, share that parking reaches", found.host_link, "share", "measured", HOST_LINK_SOURCE, key="host_link_reached")
    for name, spread in (("prefill and TTFT", found.prefill_log_sd), ("decode and TPOT", found.decode_log_sd)):
        yield _row(about, f"measured over predicted, {name}", 1.0, "", "derived", "over rows that the fit had not seen", 100 * spread)


def _figure(about: str, name: str, found: Profile, own: Mapping[str, Any], fitted: str, value: float, log_sd: float) -> Row:
    known, stem = PARAMETERS[name], name.removesuffix("_s")
    unit, factor = (known.unit, 1.0) if known.unit != "s" else ("us", 1e6) if name != "server_s" else ("ms", 1e3)
    stated = next((own[key] for key in (name, f"{stem}_us", f"{stem}_ms") if isinstance(own.get(key), Sourced)), None)
    if stated is not None and found.id.startswith("measured: "):
        return _row(about, known.about, value * factor, unit, stated.tag, stated.source, key=name)
    return _row(about, known.about, value * factor, unit, "derived", fitted, 100 * log_sd * narrowing(name, value), key=name)


def _sources(names: tuple[str, ...], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"from {', '.join(names[:most])}{more}"


def _engine(problem: Problem) -> Iterator[Row]:
    engine, memory = problem.engine, problem.engine.memory
    about = f"engine: {engine.name}"
    yield _row(about, "version", engine.version, "", "published", engine.chunking.source)
    share = f"default share of {memory.base} ({memory.setting})"
    yield _row(about, share, memory.share, "share", "published", memory.source, key="memory_share")
    gib = float(problem.accelerator.memory.value) / 2**30
    yield _row(about, f"default {engine.chunking.setting}", engine.chunk(gib, problem.accelerator.id), "tokens", "published", engine.chunking.source)
    cap = engine.sequences(gib, problem.accelerator.id)
    yield _row(about, f"default {engine.max_sequences.setting}", cap, "requests", "published", engine.max_sequences.source)


def _model(problem: Problem) -> Iterator[Row]:
    model, about = problem.model, f"model: {problem.model.name}"
    source = f"{model.source} ({model.completeness})"
    yield _row(about, "parameters", model.parameters.total, "", model.tag, source, key="parameters")
    yield _row(about, "parameters that one token touches", model.parameters.active, "", model.tag, source, key="active_parameters")
    yield _row(about, "layers", model.layers, "", model.tag, source, key="layers")
    for name, kind in model.kinds.items():
        if kind.kv_heads:
            count = sum(repeat for other, repeat in model.order if other == name)
            said = f"{count} layers of {kind.kv_heads} KV heads, K {kind.key_width} and V {kind.value_width} wide"
            yield _row(about, f"KV cache, {name}", said + (f", window {kind.window:,}" if kind.window else ""), "", model.tag, source, key="kv_heads")
    for weights in problem.checkpoints:
        said = "asked for" if problem.scenario.weights else "the model's own format"
        yield _row(about, f"accuracy kept by {weights.format} weights", weights.retained, "share", "assumed", said)


def _sessions(problem: Problem) -> Iterator[Row]:
    about, atoms = f"sessions: {problem.workload.id}", problem.workload.atoms
    for name, (said, unit) in SESSION.items():
        first = getattr(atoms[0], name)
        kinds = "" if len(atoms) == 1 else f", mean of {len(atoms)} kinds of session"
        mean = float(np.sum(problem.sessions.weight * np.asarray([getattr(atom, name).value for atom in atoms])))
        yield _row(about, said + kinds, mean, unit, first.tag, first.source, key=name)
    if problem.keeps_prefixes and problem.workload.reuse is not None:
        reuse = problem.workload.reuse
        yield _row(about, "shared prefixes found, at most", reuse.hits[-1], "share", reuse.tag, reuse.source)
    sources = (f"{problem.workload.ttft_s.source}; by length: {problem.workload.ttft_s_per_1k_tokens.source}", problem.workload.tpot_s.source)
    for name, target, usual in zip(("ttft", "tpot"), problem.latency_targets, sources, strict=True):
        percentile = f", percentile {target.percentile:g}" if target.percentile else ""
        source = usual if getattr(problem.scenario, name) is None else "asked for"
        yield _row(about, f"target for {name.upper()}{percentile}", target.seconds, "s", "assumed", source, key=f"{name}_target")


def _accuracy(problem: Problem) -> Iterator[Row]:
    count = sum(len(posterior.load(dimension).readings) for dimension in FITTED)
    yield _row(
        "accuracy",
        "published measurements of compressed models",
        count,
        "readings",
        "published",
        "each with its source: kvopt catalog methods",
        key="accuracy",
    )
    if problem.own is not None:
        yield _row("accuracy", "your own measurements", len(problem.own.readings), "readings", "measured", problem.own.source)
    floor = problem.scenario.accuracy_floor
    yield _row(
        "accuracy", f"floor, on {problem.task}", floor, "share", "assumed", "asked for" if _asked(problem, "accuracy_floor") else "the default"
    )
    confidence = problem.scenario.confidence
    said = "asked for" if _asked(problem, "confidence") else "the default"
    yield _row("accuracy", "confidence of every limit", confidence, "share", "assumed", said, key="confidence")


def _asked(problem: Problem, name: str) -> bool:
    return name in problem.scenario.model_fields_set
