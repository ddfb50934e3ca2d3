"""The picture of the study `paper`: every published number beside the computed one, and where the time of the paper's session goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvopt.plots.style import BLUE, GREY, INK, STYLE, VERMILLION
from kvopt.wording import number

METRICS = {
    "Concurrency": ("KV cache", "sessions in"),
    "Prefill": ("prefill",),
    "Decoding": ("critical batch", "an answer"),
    "Context switching": ("context switch",),
}
"""The paper's four metrics, by how the names of their numbers begin."""
PARTS = {"prefill": (BLUE, ""), "answers": ("#f2b48a", "////"), "context switches": ("#e0e0e0", "....")}
USERS = 6  # of the timeline
Row = Mapping[str, Any]


def figure(rows: Sequence[Row], sessions: Mapping[str, Mapping[str, float]], rounds: int, think_s: float) -> Figure:
    """`sessions`: [s] of prefill, answers and context switches of a whole session of so many `rounds`, by whose numbers they are; the first is played."""
    listed = _listed(rows)
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(12.0, 1.5 + 0.225 * len(listed)), layout="constrained")
        ratios, right = drawing.subfigures(1, 2, squeeze=False, width_ratios=(1.45, 1.0))[0]
        _ratios(ratios.subplots(), listed)
        times, users = right.subplots(2, 1)
        _times(times, sessions)
        _users(users, next(iter(sessions.values())), rounds, think_s)
    return drawing


def _listed(rows: Sequence[Row]) -> list[tuple[str, Row]]:
    """The published numbers in the order of the metrics; one that is read in two ways that come to the same stands there once."""
    found: dict[tuple[Any, ...], tuple[str, Row]] = {}
    for metric, starts in METRICS.items():
        for row in rows:
            if row["published"] is not None and row["quantity"].startswith(starts):
                found.setdefault((row["quantity"], row["computed"]), (metric, row))
    return list(found.values())


def _ratios(axes: Axes, listed: Sequence[tuple[str, Row]]) -> None:
    for place, (_, row) in enumerate(listed):
        ratio, holds = row["computed"] / float(row["published"].rstrip("+")), row["verdict"] == "reproduces"
        axes.plot([1, ratio], [place, place], color=BLUE if holds else VERMILLION, linewidth=1.0, zorder=2)
        axes.plot(ratio, place, **_mark(holds), zorder=3)
        text = f"{_said(row['computed'])} for {row['published']} {row['unit']}".replace("2^50", "$2^{50}$")
        left = ratio < 1
        axes.annotate(
            text, (ratio, place), (-6 if left else 6, 0), textcoords="offset points", va="center", ha="right" if left else "left", fontsize=7.5
        )
    edges = [place for place in range(1, len(listed)) if listed[place][0] != listed[place - 1][0]]
    for first, last in zip([0, *edges], [*edges, len(listed)], strict=True):
        if edges and first in edges:
            axes.axhline(first - 0.5, color="#cccccc", linewidth=0.8)
        axes.annotate(listed[first][0], (0.995, first - 0.32), xycoords=("axes fraction", "data"), ha="right", va="top", fontsize=8, weight="bold")
        assert last > first
    axes.axvline(1, color=INK, linewidth=0.9, linestyle=(0, (5, 3)), zorder=1)
    axes.set_yticks(range(len(listed)), [row["quantity"] for _, row in listed])
    axes.set_ylim(len(listed) - 0.5, -0.5)
    ratios = [row["computed"] / float(row["published"].rstrip("+")) for _, row in listed]
    low, high = min([0.8, *ratios]), max([1.25, *ratios])
    axes.set(xlim=(low - 0.45 * (high - low), high + 0.5 * (high - low)), xlabel="Computed over published")
    axes.set_xticks([tick / 10 for tick in range(1, 40) if low - 0.05 <= tick / 10 <= high + 0.05][:: 1 if high - low < 1 else 5])
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")
    axes.set_title("Published numbers of arXiv 2405.08944", pad=22)
    named = {True: "reproduces, written as the paper writes it", False: "does not reproduce"}
    marks = [Line2D([], [], linestyle="none", label=label, **_mark(holds)) for holds, label in named.items()]
    axes.legend(handles=marks, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, handletextpad=0.3)


def _said(value: float) -> str:
    return f"{value:g}" if float(value).is_integer() else number(value)


def _mark(holds: bool) -> dict[str, Any]:
    colour = BLUE if holds else VERMILLION
    return {"color": colour, "marker": "o" if holds else "X", "markersize": 5.5, "markerfacecolor": colour if holds else "white"}


def _times(axes: Axes, sessions: Mapping[str, Mapping[str, float]]) -> None:
    for place, parts in enumerate(sessions.values()):
        left = 0.0
        for name, (face, hatch) in PARTS.items():
            bar: dict[str, Any] = {"facecolor": face, "edgecolor": INK, "hatch": hatch, "linewidth": 0.7}
            axes.barh(place, parts[name], 0.6, left=left, label=name if place == 0 else None, **bar)
            left += parts[name]
        axes.annotate(f"{left:.1f} s, {3600 / left:.0f} sessions/h", (left, place), (5, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(sessions)), list(sessions))
    axes.invert_yaxis()
    longest = max(sum(parts.values()) for parts in sessions.values())
    axes.set(xlim=(0, 1.62 * longest), xlabel="GPU time of a session, one user at a time [s]")
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")
    axes.set_title("Where a session's time goes", pad=22)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2, handlelength=1.6, columnspacing=1.2)


def played(parts: Mapping[str, float], rounds: int, think_s: float, users: int = USERS) -> list[tuple[int, str, float, float]]:
    """(user, what, from, to) [s] where `users` share one GPU that holds one cache: whoever waits longest is served next, and an idle cache is sent out.

    `parts`: [s] of a session of `rounds` answers. A switch brings one cache in and sends another out: none before a session's first answer.
    """
    each = {name: parts[name] / rounds for name in ("answers", "context switches")}
    ready, done = dict.fromkeys(range(users), 0.0), dict.fromkeys(range(users), 0)
    spans: list[tuple[int, str, float, float]] = []
    now, last = 0.0, -1
    while ready:
        user = min(ready, key=lambda one: (ready[one], one))
        now = max(now, ready.pop(user))
        work = [("prefill", parts["prefill"])] if done[user] == 0 else [("context switches", each["context switches"])] if user != last else []
        for what, seconds in (*work, ("answers", each["answers"])):
            spans.append((user, what, now, now + seconds))
            now += seconds
        done[user], last = done[user] + 1, user
        if done[user] < rounds:
            spans.append((user, "thinks", now, now + think_s))
            ready[user] = now + think_s
    return spans


def _users(axes: Axes, parts: Mapping[str, float], rounds: int, think_s: float) -> None:
    spans = played(parts, rounds, think_s)
    for user, what, start, end in spans:
        if what == "thinks":
            axes.plot([start, end], [user, user], color=GREY, linewidth=0.8, linestyle=(0, (1, 1.5)), zorder=1)
        else:
            face, hatch = PARTS[what]
            axes.barh(user, end - start, 0.6, left=start, facecolor=face, edgecolor=INK, hatch=hatch, linewidth=0.5, zorder=2)
    axes.set_yticks(range(USERS), [f"user {user + 1}" for user in range(USERS)])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(0, None), xlabel="Time [s] (dotted: the user thinks)")
    axes.grid(True, axis="x")
    axes.set_title(f"{USERS} users at 50K share one GPU that holds one cache")
