"""The study `context_scaling`: the paper's four metrics from 4K to 1M, and how the cost of a session moves from decoding to prefill."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from kvopt import api
from kvopt.inputs.quantities import parse_tokens
from kvopt.inputs.scenario import Scenario
from kvopt.plots import STYLE, write_figure
from studies.result import StudyResult

QUESTION = "How do concurrency, prefill, decoding and context switching move from 4K to 1M, and what does a session's time go to?"
CONTEXTS = ("4k", "8k", "16k", "32k", "64k", "128k", "256k", "512k", "1m")
NO_TARGET = {"ttft": "30d", "tpot": "1h"}  # targets set aside: the question is what a context costs, not whether it is served in time
PARTS = ("prefill", "decoding", "context switching")


def run(out: Path | None = None, contexts: Sequence[str] = CONTEXTS, **fields: Any) -> StudyResult:
    """One row per context length for one scenario (eight A100s at `peak` fidelity unless told otherwise); fields of `Scenario` change it."""
    asked = {"gpus": 8, "fidelity": "peak", **NO_TARGET, **fields}
    rows = [_row(context, asked) for context in contexts]
    first, last = rows[0], rows[-1]
    notes = (
        f"{Scenario.of(**asked).model} on {asked['gpus']} x {Scenario.of(**asked).accelerator}, {asked['fidelity']}; one user at a time, think time overlapped",
        f"prefill takes {100 * first['prefill share']:.0f} % of a session at {first['context']:,} tokens and {100 * last['prefill share']:.0f} % at {last['context']:,}",
        _as_cheap(first, last),
    )
    columns = tuple(rows[0])
    result = StudyResult(title=QUESTION, columns=columns, rows=tuple(rows), notes=notes, ok=True)
    if out is not None:
        write_figure(figure(rows), out, "context_scaling")
    return result


def _row(context: str, asked: dict[str, Any]) -> dict[str, Any]:
    result = api.analyze(Scenario.of(context=context, **asked))
    found, scenario = result.data["metrics"], Scenario.of(context=context, **asked)
    sessions = api.session_of(scenario)
    decoding = found["decode_s_per_token"] * sessions["answers"]
    switching = (found["context_switch_s"] or 0.0) * sessions["gaps"]
    total = found["prefill_s"] + decoding + switching
    return {
        "context": parse_tokens(context),
        "KV GiB": found["kv_bytes_per_session"] / 2**30,
        "concurrency": found["concurrency"],
        "prefill s": found["prefill_s"],
        "decode s per answer": found["decode_s_per_token"] * sessions["answer"],
        "context switch s": found["context_switch_s"],
        "busy s a session": total,
        "prefill share": found["prefill_s"] / total,
        "decoding share": decoding / total,
        "switching share": switching / total,
        "sessions/GPU-hour": found["sessions_per_gpu_hour"],
    }


def _as_cheap(first: dict[str, Any], last: dict[str, Any]) -> str:
    ratio = last["busy s a session"] / first["busy s a session"]
    return f"a session at {last['context']:,} tokens takes {ratio:,.0f} times the busy time of one at {first['context']:,}, and {last['KV GiB'] / first['KV GiB']:,.0f} times the cache"


def figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """The four metrics against the context, and the shares of a session's time, side by side."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        drawing = Figure(figsize=(9.5, 3.8), layout="constrained")
        left, right = drawing.subplots(1, 2)
        x = [row["context"] for row in rows]
        lines = {"prefill [s]": "prefill s", "answer decoded [s]": "decode s per answer", "context switch [s]": "context switch s", "sessions that fit": "concurrency"}
        for (label, column), (marker, dash) in zip(lines.items(), (("o", "-"), ("s", "--"), ("^", ":"), ("D", "-.")), strict=True):
            points = [(tokens, row[column]) for tokens, row in zip(x, rows, strict=True) if row[column]]
            left.plot(*zip(*points, strict=True), marker=marker, linestyle=dash, label=label)
        left.set(xscale="log", yscale="log", xlabel="context [tokens]", ylabel="seconds, or sessions", title="The four metrics")
        left.legend(frameon=False)
        shares = [[row[f"{name.split()[-1]} share"] * 100 for row in rows] for name in ("prefill", "decoding", "switching")]
        right.stackplot(x, shares, labels=PARTS, colors=("#0072b2", "#e69f00", "#999999"), edgecolor="white", linewidth=0.5)
        right.set(xscale="log", xlabel="context [tokens]", ylabel="share of a session's busy time [%]", title="From decoding to prefill", ylim=(0, 100), xlim=(x[0], x[-1]))
        right.legend(frameon=True, loc="upper left")
    return drawing
