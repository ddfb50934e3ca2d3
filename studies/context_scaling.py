"""The study `context_scaling`: the paper's four metrics from 4K to 1M, and how the cost of a session moves from decoding to prefill."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from kvopt import api
from kvopt.errors import BadInput
from kvopt.inputs.quantities import parse_lengths, parse_tokens
from kvopt.inputs.scenario import Scenario
from kvopt.plots import STYLE, write_figure
from kvopt.plots.style import BLUE, GREY, INK, VERMILLION
from kvopt.problem import resolve
from kvopt.search.pipeline import Progress
from kvopt.wording import tokens
from studies.result import StudyResult

QUESTION = "How do concurrency, prefill, decoding and context switching move from 4K to 1M, and what does a session's time go to?"
CONTEXTS = ("4k", "8k", "16k", "32k", "64k", "128k", "256k", "512k", "1m")
NO_TARGET = {"ttft": "30d", "tpot": "1h"}  # targets set aside: the question is what a context costs, not whether it is served in time
TIMES = {"prefill": "prefill s", "answer": "answer s", "context switch": "switch s"}
SHARES = {"prefill": "prefill %", "decoding": "decode %", "context switching": "switch %"}


def run(
    out: Path | None = None, progress: Progress | None = None, contexts: str | int | Sequence[str | int] = CONTEXTS, **fields: Any
) -> StudyResult:
    """One row per context length for one scenario (eight A100s at `peak` fidelity unless told otherwise); fields of `Scenario` change it.

    A session's busy time is that of a group which serves one user at a time: one prefill, all answers decoded at the length of the prompt, and a
    context switch after each answer but the last. Questions are short beside the prompt and left out. `contexts`: a list, or text as `4k,128k`.
    `out`: folder for the picture. Raises `BadInput`.
    """
    if "context" in fields:
        raise BadInput("option", "context", "this study takes several: contexts")
    lengths = parse_lengths(contexts, "contexts")
    if not lengths:
        raise BadInput("contexts", "none", "needs one length or more")
    asked = {"gpus": 8, "fidelity": "peak", **NO_TARGET, **fields}
    rows = []
    for place, length in enumerate(lengths):
        if progress is not None:
            progress(f"{length:,} tokens", place / len(lengths))
        rows.append(_row(Scenario.of(**{**asked, "context": length})))
    if out is not None:
        write_figure(figure(rows), out, "context_scaling")
    return StudyResult(title=QUESTION, columns=tuple(rows[0]), rows=tuple(rows), notes=_notes(Scenario.of(**asked), rows), hidden=("switch %",))


def _row(scenario: Scenario) -> dict[str, Any]:
    resolve(scenario).require_known()
    found, session = api.analyze(scenario).data["metrics"], api.session_of(scenario)
    answer = found["decode_s_per_token"] * session["answer"]
    switch = found["context_switch_s"] or 0.0  # unknown: no link to the host is known, and nothing is switched
    parts = (found["prefill_s"], found["decode_s_per_token"] * session["answers"], switch * session["gaps"])
    busy = sum(parts)
    return {
        "context": parse_tokens(scenario.context or 0),
        "cache GiB": found["kv_bytes_per_session"] / 2**30,
        "users in HBM": found["concurrency"],
        "prefill s": found["prefill_s"],
        "answer s": answer,
        "switch s": found["context_switch_s"],
        "busy s": busy,
        **{name: 100 * part / busy for name, part in zip(SHARES.values(), parts, strict=True)},
        "sessions per GPU-hour": found["sessions_per_gpu_hour"],
    }


def _notes(scenario: Scenario, rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    first, last = rows[0], rows[-1]
    lengths = f"{first['context']:,} to {last['context']:,} tokens"
    session, question = api.session_of(scenario), f"{scenario.model} on {scenario.gpus} x {scenario.accelerator}, {scenario.fidelity} fidelity"
    return (
        f"{question}, {session['turns']:g} answers of {session['answer']:g} tokens",
        "busy s: one user at a time, think time overlapped; sessions per GPU-hour: as many users at once as fit, latency targets set aside",
        f"from {lengths} the share of prefill in a session's time goes from {first['prefill %']:.0f} to {last['prefill %']:.0f} %",
        f"from {lengths} the cache grows {last['cache GiB'] / first['cache GiB']:,.0f} times, "
        f"the time that a session takes {last['busy s'] / first['busy s']:,.0f} times",
    )


def figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """Against the context: the times of one user, the sessions that fit in HBM, and the shares of a session's time."""
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(10.5, 3.4), layout="constrained")
        times, fitting, shares = drawing.subplots(1, 3)
        _times(times, rows)
        _fitting(fitting, rows)
        _shares(shares, rows)
        for axes, title in ((times, "One user at a time"), (fitting, "Concurrency"), (shares, "From decoding to prefill")):
            _context_axis(axes, [row["context"] for row in rows])
            axes.set_title(title, pad=22)
        for axes in (times, shares):
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2, handlelength=2, columnspacing=1.2)
    return drawing


def _times(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    for (label, column), (colour, marker, dash) in zip(TIMES.items(), ((BLUE, "o", "-"), (VERMILLION, "s", "--"), (GREY, "^", ":")), strict=True):
        points = [(row["context"], row[column]) for row in rows if row[column]]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, linestyle=dash, label=label)
    axes.set(yscale="log", ylabel="Time [s]")
    axes.grid(True)


def _fitting(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    points = [(row["context"], row["users in HBM"]) for row in rows if row["users in HBM"]]
    if points:
        axes.plot(*zip(*points, strict=True), color=INK, marker="D", linestyle="-")
        axes.set(yscale="log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,g}"))
    for at, count in points:
        axes.annotate(f"{count:,.0f}", (at, count), (4, 3), textcoords="offset points", fontsize=7.5)
    axes.set(ylabel="Sessions in HBM at once")
    axes.grid(True)


def _shares(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    x = [row["context"] for row in rows]
    low = [0.0] * len(rows)
    for (label, column), (colour, hatch) in zip(SHARES.items(), ((BLUE, ""), ("#f2b48a", "////"), ("#e0e0e0", "....")), strict=True):
        high = [base + row[column] for base, row in zip(low, rows, strict=True)]
        axes.fill_between(x, low, high, facecolor=colour, edgecolor="white", hatch=hatch, linewidth=0.8, label=label)
        low = high
    axes.set(ylim=(0, 100), ylabel="Share of a session's busy time [%]")


def _context_axis(axes: Axes, contexts: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(contexts[:: 1 + len(contexts) // 6])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda length, _: tokens(length)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("Context [tokens]")
