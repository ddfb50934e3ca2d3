"""Request traces, read into sessions: one weighted atom of `objectives.types.Workload` per session, numpy leaves.

Two kinds of file:

- CSV with a header. `prompt_tokens` and `answer_tokens` must be there; `session`, `arrival_s`, `turn`, `shared_prefix_tokens` and `prefix` may be.
  `prompt_tokens` is what the request sends, its history included. Rows of one `session` are its turns, ordered by `turn`, else by `arrival_s`;
  without the column every row is a session of one turn. `shared_prefix_tokens` is the part of the prompt that other sessions send too, `prefix`
  names it (absent: equal lengths are one prefix). Columns under their names in public traces do as well: Azure's `TIMESTAMP`, `ContextTokens` and
  `GeneratedTokens` (no sessions there: each request is one), Vidur's `num_prefill_tokens` and `num_decode_tokens`, LLMServingSim's `input_toks`,
  `output_toks` and `arrival_time`.
- Mooncake JSONL: `timestamp` [ms], `input_length`, `output_length` and `hash_ids`, one id per 512-token block of the prompt, equal where the prompt
  is equal up to and including that block.

From requests to sessions: the first prompt loses one question's length, so that prompt + turns * (question + answer) is what the session really reads
and writes; a question is what a later request adds beyond the context so far. An answer of no tokens counts as one, since a prompt yields one.
Think time is arrival to arrival, less the reply at `REPLY_S_PER_TOKEN`.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from kvopt.errors import BadInput
from kvopt.inputs.reuse import reuse_curve
from objectives.types import Workload

BLOCK_TOKENS = 512  # of a Mooncake hash id
REPLY_S_PER_TOKEN = 0.05  # [s] assumed where a trace says when requests came and not how long replies took: 50 ms, the slow end of chat presets

Curve = tuple[np.ndarray, np.ndarray]  # of `reuse_curve`

_NAMES = {
    "prompt_tokens": ("prompt_tokens", "ContextTokens", "num_prefill_tokens", "input_toks"),
    "answer_tokens": ("answer_tokens", "GeneratedTokens", "num_decode_tokens", "output_toks", "output_tokens"),
    "arrival_s": ("arrival_s", "TIMESTAMP", "arrival_time", "timestamp", "Timestamp", "timestamp_s", "time_s"),
    "session": ("session",),
    "turn": ("turn",),
    "shared_prefix_tokens": ("shared_prefix_tokens",),
    "prefix": ("prefix",),
}


_ATOM = ("prompt", "turns", "question", "answer", "think_s", "shared_prefix")


@dataclass(frozen=True)
class Request:
    """One request: when it came [s], what it sends, history included, and what comes back [tokens]."""

    arrival_s: float
    prompt: float
    answer: float


@dataclass(frozen=True)
class Session:
    """The requests of one session in order, and how much of the first prompt other sessions send too [tokens]."""

    requests: Sequence[Request]
    shared_prefix: float = 0.0

    def atom(self) -> tuple[float, float, float, float, float, float]:
        """The fields `_ATOM` of the session, with its total tokens kept."""
        requests, turns = self.requests, len(self.requests)
        later = list(pairwise(requests))
        added = sum(max(0.0, after.prompt - before.prompt - before.answer) for before, after in later)
        gaps = [max(0.0, after.arrival_s - before.arrival_s - REPLY_S_PER_TOKEN * before.answer) for before, after in later]
        total = requests[0].prompt + added
        question = min(added / len(later), (total - 1) / turns) if later else 0.0
        answer = sum(max(1.0, request.answer) for request in requests) / turns
        prompt = max(1.0, total - turns * question)
        return prompt, turns, question, answer, sum(gaps) / len(gaps) if gaps else 0.0, min(self.shared_prefix, prompt)


def read_trace(path: Path) -> Workload:
    """The sessions of a trace file, one atom each. Raises `BadInput` with the file's name and the line for what cannot be read."""
    sessions, curve = _read(path)
    columns: dict[str, Any] = dict(zip(_ATOM, np.asarray([session.atom() for session in sessions], np.float64).T, strict=True))
    columns |= {"weight": np.full(len(sessions), 1 / len(sessions)), "reuse_tokens": curve[0], "reuse_hits": curve[1]}
    return Workload(**columns)


def read_sessions(path: Path) -> list[Session]:
    """The sessions of a trace file with every request as it came. Raises `BadInput` as `read_trace` does, and where no request says when it came."""
    sessions = _read(path)[0]
    if len(sessions) > 1 and not any(request.arrival_s for session in sessions for request in session.requests):
        raise BadInput("trace", path, f"says of no request when it came: needs a column {' or '.join(_NAMES['arrival_s'])}")
    return sessions


def _read(path: Path) -> tuple[list[Session], Curve]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput("workload", path, f"cannot be read ({error.__class__.__name__})") from None
    if not any(line.strip() for line in lines):
        raise BadInput("workload", path, "is empty")
    read = _mooncake if path.suffix.lower() in (".jsonl", ".ndjson") else _csv
    try:
        sessions, curve = read(lines, path.name)
    except csv.Error as error:
        raise BadInput("workload", path, f"not CSV ({error})") from None
    if not sessions:
        raise BadInput("workload", path, "has no requests")
    return sessions, curve


def _csv(lines: list[str], name: str) -> tuple[list[Session], Curve]:
    rows = csv.reader(lines)
    header = [cell.strip() for cell in next(rows, [])]
    column = {ours: header.index(theirs) for ours, names in _NAMES.items() for theirs in reversed(names) if theirs in header}
    for ours in ("prompt_tokens", "answer_tokens"):
        if ours not in column:
            names = _NAMES[ours]
            raise BadInput(f"{name} line 1", ",".join(header), f"must have a column {names[0]} (or {' or '.join(names[1:])})")
    by_session: dict[str, list[tuple[float, Request, float, str]]] = {}
    for row in rows:
        if not row:
            continue
        where, cell = f"{name} line {rows.line_num}", _cells(row, column, f"{name} line {rows.line_num}")
        arrival = _arrival(cell["arrival_s"], where) if "arrival_s" in cell else 0.0
        prompt = _number(cell["prompt_tokens"], f"{where}, prompt_tokens", least=1)
        request = Request(arrival, prompt, _number(cell["answer_tokens"], f"{where}, answer_tokens"))
        shared = _number(cell.get("shared_prefix_tokens") or "0", f"{where}, shared_prefix_tokens")
        if shared > prompt:
            raise BadInput(f"{where}, shared_prefix_tokens", cell["shared_prefix_tokens"], f"must not be above the prompt's {prompt:g} tokens")
        order = _number(cell["turn"], f"{where}, turn") if "turn" in cell else arrival
        by_session.setdefault(cell.get("session") or f"line {rows.line_num}", []).append(
            (order, request, shared, cell.get("prefix") or f"{shared:g}")
        )
    first: list[tuple[float, str, float]] = []
    sessions = []
    for turns in by_session.values():
        turns.sort(key=lambda turn: turn[0])
        _, request, shared, prefix = turns[0]
        first.append((request.arrival_s, prefix, shared))
        sessions.append(Session([turn[1] for turn in turns], shared))
    uses = [(prefix, shared) for _, prefix, shared in sorted(first, key=lambda use: use[0]) if shared > 0]
    return sessions, reuse_curve([prefix for prefix, _ in uses], np.asarray([shared for _, shared in uses]), np.ones(len(uses), bool))


def _cells(row: list[str], column: Mapping[str, int], where: str) -> dict[str, str]:
    if len(row) <= max(column.values()):
        raise BadInput(where, ",".join(row), f"must have {max(column.values()) + 1} columns or more, as the header has")
    return {ours: row[index].strip() for ours, index in column.items()}


def _number(text: object, where: str, least: float = 0.0) -> float:
    try:
        value = float(text) if isinstance(text, (str, int, float)) and not isinstance(text, bool) else math.nan
    except (ValueError, OverflowError):
        value = math.nan
    if not least <= value < math.inf:
        raise BadInput(where, text, f"must be a number, {least:g} or more")
    return value


def _arrival(text: str, where: str) -> float:
    """Seconds, or a date with a time, which counts from 1970: only differences are used."""
    if ":" not in text:
        return _number(text, f"{where}, arrival_s")
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"{where}, arrival_s", text, "must be seconds, or a date and time as 2023-11-16 18:17:03.98") from None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


@dataclass(frozen=True)
class _Hashed(Request):
    """A request of a Mooncake trace, with the ids of its prompt's blocks."""

    blocks: Sequence[int]


def _mooncake_requests(lines: list[str], name: str) -> Iterator[_Hashed]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{name} line {number}"
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            raise BadInput(where, line, "must be one JSON object per line") from None
        if not isinstance(entry, dict) or (lacking := {"timestamp", "input_length", "output_length", "hash_ids"} - entry.keys()):
            lacks = f", and lacks {', '.join(sorted(lacking))}" if isinstance(entry, dict) else ""
            raise BadInput(where, line, f"must be an object with timestamp, input_length, output_length and hash_ids{lacks}")
        if not isinstance(entry["hash_ids"], list) or not all(isinstance(block, int) for block in entry["hash_ids"]):
            raise BadInput(f"{where}, hash_ids", entry["hash_ids"], "must be a list of whole numbers")
        yield _Hashed(
            _number(entry["timestamp"], f"{where}, timestamp") / 1000,
            _number(entry["input_length"], f"{where}, input_length", least=1),
            _number(entry["output_length"], f"{where}, output_length"),
            entry["hash_ids"],
        )


def _mooncake(lines: list[str], name: str) -> tuple[list[Session], Curve]:
    """Turn chains through the hash ids, and the reuse of prefixes between chains.

    A request continues the chain whose last full block is in its own, longer prompt. That block must be one that the chain was first to send, lest
    short prompts, which end in everybody's system prompt, be joined to strangers. A chain has one next turn: a second request that builds on the
    same turn (an answer asked for again, another reader of one document) opens a chain of its own, with a shared prefix.
    What a chain has sent before is its session's own cache and no reuse; all other blocks go through one LRU cache, the unshared ones too.
    """
    requests = sorted(_mooncake_requests(lines, name), key=lambda request: request.arrival_s)
    chains: list[list[_Hashed]] = []
    own: list[set[int]] = []  # blocks that each chain has sent
    tail: dict[int, int] = {}  # last full block of a chain's latest turn -> chain
    sender: dict[int, int] = {}  # block -> the chain that sent it first
    shared_blocks: set[int] = set()  # sent by more than one chain
    stream: list[int] = []  # blocks new to their chain, in order
    opening: list[bool] = []  # whether the block is of a first prompt
    for request in requests:
        chain = next((tail[block] for block in reversed(request.blocks) if block in tail), None)
        if chain is None or request.prompt <= chains[chain][-1].prompt:
            chain = len(chains)
            chains.append([])
            own.append(set())
        else:
            del tail[_last_full_block(chains[chain][-1])]
        new = [block for block in dict.fromkeys(request.blocks) if block not in own[chain]]
        stream.extend(new)
        opening.extend([not chains[chain]] * len(new))
        own[chain].update(new)
        chains[chain].append(request)
        for block in new:
            if sender.setdefault(block, chain) != chain:
                shared_blocks.add(block)
        if sender.get(last := _last_full_block(request)) == chain:
            tail[last] = chain
    sessions = []
    for turns in chains:
        shared = next((index for index, block in enumerate(turns[0].blocks) if block not in shared_blocks), len(turns[0].blocks))
        sessions.append(Session(turns, min(float(shared * BLOCK_TOKENS), turns[0].prompt)))
    scored = np.asarray([first and block in shared_blocks for block, first in zip(stream, opening, strict=True)], bool)
    return sessions, reuse_curve(stream, np.full(len(stream), float(BLOCK_TOKENS)), scored)


def _last_full_block(request: _Hashed) -> int:
    """The id of the last block that the prompt fills, -1 where it fills none: a part-filled block is another one in the next turn."""
    full = min(int(request.prompt) // BLOCK_TOKENS, len(request.blocks))
    return request.blocks[full - 1] if full else -1
