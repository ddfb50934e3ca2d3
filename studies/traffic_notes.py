"""What the study `traffic` says of its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from kvopt.problem import Problem
from kvopt.wording import dollars, number, seconds
from studies.traffic_replay import FATES, PARK, Slo

SHARES = (99.0, 95.0, 90.0)  # [%] of the requests that are to meet their targets
Row = dict[str, Any]


def notes(problem: Problem, slo: Slo, rows: Sequence[Row], idle: Sequence[Row], played: Sequence[tuple[str, int, int, str]]) -> tuple[str, ...]:
    """The findings, from the numbers. `played`: name, sessions, requests and source of each trace."""
    return (
        f"{problem.model.id} on {problem.accelerator.id}, {problem.engine.id}, at most {problem.scenario.chunk or 'the default number of'} tokens a step; a "
        f"request meets its targets with {seconds(slo.ttft_s)} and {seconds(slo.ttft_s_per_1k)} per 1,000 tokens of prompt to the first token, "
        f"{seconds(slo.tpot_s)} per output token on average",
        "load: of the throughput with all requests queued at once; sessions begin closer together or further apart, the gaps within a session stay; requests/s "
        "are those that came while sessions began; users: sessions that go on at once per GPU, those who think included",
        *(f"{name}: {sessions:,} sessions, {requests:,} requests; {source}" for name, sessions, requests, source in played),
        *(_attained(name, [row for row in rows if row["trace"] == name]) for name, *_ in played if any(row["trace"] == name for row in rows)),
        *_fates(rows),
        *(said for row in idle for said in (_idle(row), _held(row, [one for one in rows if one["trace"] == row["trace"]]))),
    )


def _attained(name: str, mine: Sequence[Row]) -> str:
    """Users at which so many requests meet their targets, under the fate that is best at it."""
    found = []
    fate = PARK if any(row["idle"] == PARK for row in mine) else mine[0]["idle"]
    curve = [row for row in mine if row["idle"] == fate]
    for share in SHARES:
        at = crossing(curve, share)
        if at is None:
            found.append(f"{share:g} % at no load tried")
        else:
            found.append(f"{share:g} % up to {number(at[0])} users ({number(at[1])} requests/s)" + (" and more" if at[2] else ""))
    return f"{name}, idle caches: {fate}; requests that meet their targets: {', '.join(found)}"


def crossing(curve: Sequence[Row], share: float) -> tuple[float, float, bool] | None:
    """(users, requests/s, whether the last load still holds) at which the share [%] of a rising load's curve is first missed, straight between loads.

    None where the least load misses it.
    """
    if not curve or curve[0]["attained %"] < share:
        return None
    for before, after in pairwise(curve):
        if after["attained %"] < share:
            part = (before["attained %"] - share) / (before["attained %"] - after["attained %"])
            users, rate = (before[name] + part * (after[name] - before[name]) for name in ("users", "requests/s"))
            return users, rate, False
    return curve[-1]["users"], curve[-1]["requests/s"], True


def _fates(rows: Sequence[Row]) -> list[str]:
    """Where fates differ most."""
    found: list[str] = []
    for name in dict.fromkeys(row["trace"] for row in rows):
        mine = [row for row in rows if row["trace"] == name]
        if len({row["idle"] for row in mine}) < 2:
            continue
        by = {load: {row["idle"]: row["attained %"] for row in mine if row["load %"] == load} for load in {row["load %"] for row in mine}}
        load = max(sorted(by), key=lambda one: max(by[one].values()) - min(by[one].values()))
        told = ", ".join(
            f"{number(value)} % with {fate} ({FATES[fate]})" if not found else f"{number(value)} % with {fate}" for fate, value in by[load].items()
        )
        found.append(f"{name}: fates of idle caches differ most at {load:g} % load: {told} meet their targets")
    return found


def _idle(row: Row) -> str:
    usd = {fate: row[f"{fate} USD/session"] for fate in ("keep", "park", "recompute")}
    said = [
        f"{fate} {number(row[f'{fate} GPU s/session'])} GPU-s" + (f" ({dollars(usd[fate])})" if usd[fate] is not None else "")
        for fate in usd
        if row[f"{fate} GPU s/session"] is not None
    ]
    park = f"parking pays from {seconds(row['park after s'])} on, " if row["park after s"] is not None else ""
    return (
        f"{row['trace']}: gaps of {seconds(row['gap p50 s'])} in the median (90th percentile {seconds(row['gap p90 s'])}), caches of "
        f"{row['context p50']:,} tokens, {number(row['GB.s/session'])} GB.s per session that comes back; where HBM is full that costs {', '.join(said)}. "
        f"At the median context {park}computing again from {seconds(row['recompute after s'])} on; "
        f"{number(row['gaps below recompute %'])} % of the gaps are shorter"
    )


def _held(row: Row, mine: Sequence[Row]) -> str:
    """How much cache would lie idle at the load that 95 % of the requests meet their targets at."""
    fate = PARK if any(one["idle"] == PARK for one in mine) else mine[0]["idle"]
    at = crossing([one for one in mine if one["idle"] == fate], 95.0)
    free = "where HBM is not full, keeping is free; host memory has no price here"
    if at is None:
        return free
    held = at[1] * row["sessions per request"] * row["GB of cache per session/s"]
    return (
        f"{row['trace']}: at {number(at[1])} requests/s all idle caches together come to {number(held)} GB, {number(held / row['pool GB'])} times the "
        f"{number(row['pool GB'])} GB that HBM has for caches; {free}"
    )
