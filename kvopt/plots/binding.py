"""What binds at a point of a front, and the marker that says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

from kvopt.tables import BINDS

Kind = tuple[str, ...]
Marker = str | tuple[int, Literal[0, 1, 2], int]
KINDS = {
    "hbm": "HBM",
    "hbm_peak": "HBM",
    "host_memory": "host memory",
    "host_link": "host link",
    "prefill_utilisation": "prefill FLOP/s",
    "max_sequences": "max-num-seqs",
    "ttft_s": "TTFT",
    "tpot_s": "TPOT",
    "accuracy": "accuracy floor",
}
"""Constraints of a result, as short as a legend takes them."""
MARKERS: dict[str, Marker] = {
    "HBM": "s",
    "TTFT": "^",
    "TPOT": "v",
    "prefill FLOP/s": "D",
    "host link": ">",
    "host memory": "<",
    "max-num-seqs": "p",
    "accuracy floor": (4, 1, 0),
    "decoding": "o",
}
"""The marker of what binds alone, the same in every picture."""
SEVERAL: tuple[Marker, ...] = ("P", "X", "d", (3, 1, 0))  # of those that bind together, the most frequent first
OTHER: Marker = (6, 1, 0)  # where there are more of those
ACCURACY = 0.005  # relative slack below which the accuracy floor binds: every good plan is within a few percent of it


def binding(point: dict[str, Any], goals: Iterable[str]) -> Kind:
    """What binds at a point: constraints without slack, else the stage that fills the time; empty where it is not known. An objective does not bind itself."""
    found = []
    for row in point.get("constraints") or ():
        near = ACCURACY if row["name"] == "accuracy" else BINDS
        wanted = row["name"] == "accuracy" and "accuracy_retained" in goals
        if not wanted and row["value"] and row["limit"] is not None and row["slack"] is not None and row["slack"] <= near * abs(row["limit"]):
            found.append(KINDS[row["name"]])
    stage = point.get("bottleneck", "")
    return tuple(dict.fromkeys(found)) or ((stage,) if stage in MARKERS else ())


def markers(kinds: Iterable[Kind]) -> dict[Kind, Marker]:
    """A marker for every kind among the points: what binds alone first, then what binds together, by how often it does."""
    counted = Counter(kinds)
    order = sorted(counted, key=lambda kind: (len(kind) > 1, -counted[kind], kind))
    several = [kind for kind in order if len(kind) > 1]
    chosen = dict(zip(several, (*SEVERAL, *[OTHER] * len(several)), strict=False))
    return {kind: chosen[kind] if len(kind) > 1 else MARKERS[kind[0]] if kind else "o" for kind in order}


def said(kind: Kind, marker: Marker) -> str:
    """What a marker means, for a legend."""
    if marker == OTHER:
        return "others together"
    if kind == ("decoding",):
        return "decoding fills the time"
    return f"{' + '.join(kind)} {'bind' if len(kind) > 1 else 'binds'}"
