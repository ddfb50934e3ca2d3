"""Workloads: who asks what, how long they think, and how long they are willing to wait; and the pytree of sessions that the mathematics takes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from kvopt.catalog import ids, read
from kvopt.errors import BadInput, unknown
from kvopt.inputs.atoms import reduce_atoms
from kvopt.inputs.sourced import FILE_ENDINGS, AtLeastOne, NonNegative, Positive, Sourced, Tag, checked, is_path, read_mapping
from kvopt.inputs.traces import read_trace
from objectives.types import Workload

Task = Literal["perplexity", "knowledge", "gsm8k", "longbench", "ruler", "needle", "reasoning", "multi-needle"]
TASKS: tuple[str, ...] = get_args(Task)
TRACE_ENDINGS = (".csv", ".jsonl", ".ndjson")

_FIELDS = ("weight", "prompt", "turns", "question", "answer", "think_s", "shared_prefix")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Atom(_Frozen):
    """One kind of session: a prompt, then `turns` questions and answers with think time between. The first question comes with the prompt."""

    weight: Sourced[Positive] = Field(
        default=Sourced[Positive](value=1.0, source="assumed: the only kind of session", tag="assumed"),
        description="share of the sessions, in any unit",
    )
    prompt: Sourced[AtLeastOne] = Field(description="document, history or system prompt before the first question [tokens]")
    turns: Sourced[AtLeastOne] = Field(description="questions and answers; may be a mean")
    question: Sourced[NonNegative] = Field(description="one question [tokens]")
    answer: Sourced[AtLeastOne] = Field(description="one answer [tokens]")
    think_s: Sourced[NonNegative] = Field(description="between an answer and the next question [s]")
    shared_prefix: Sourced[NonNegative] = Field(
        default=Sourced[NonNegative](value=0.0, source="assumed: nothing shared", tag="assumed"),
        description="tokens of the prompt that other sessions have too",
    )

    @model_validator(mode="after")
    def _prefix_inside_prompt(self) -> Atom:
        if self.shared_prefix.value > self.prompt.value:
            raise ValueError(f"shared_prefix ({self.shared_prefix.value:g}) must not be above prompt ({self.prompt.value:g} tokens)")
        return self


class Reuse(_Frozen):
    """Share of the shared-prefix tokens found in a cache of a given size, rising, to be read with straight lines between."""

    tokens: tuple[NonNegative, ...] = Field(min_length=2, description="cache devoted to shared prefixes [tokens]")
    hits: tuple[NonNegative, ...] = Field(description="share of the shared-prefix tokens found")
    source: Annotated[str, StringConstraints(min_length=1)]
    tag: Tag

    @model_validator(mode="after")
    def _rises(self) -> Reuse:
        if len(self.tokens) != len(self.hits):
            raise ValueError("tokens and hits must be equally long")
        if np.any(np.diff(self.tokens) <= 0) or np.any(np.diff(self.hits) < 0) or self.hits[-1] > 1:
            raise ValueError("tokens and hits must rise, hits to 1 at most")
        return self


class WorkloadSpec(_Frozen):
    """A weighted set of sessions with its latency targets and the task family that its accuracy is judged by."""

    id: str = Field(description="the name of the catalog file")
    description: str = ""
    task: Task = Field("longbench", description="accuracy evidence to judge by, unless told otherwise")
    atoms: tuple[Atom, ...] = Field(min_length=1)
    reuse: Reuse | None = Field(None, description="needed where a prompt has a shared prefix")
    ttft_s: Sourced[Positive] = Field(description="target: time to first token, fixed part [s]")
    ttft_s_per_1k_tokens: Sourced[NonNegative] = Field(
        default=Sourced[NonNegative](value=0.0, source="assumed: the same for all prompts", tag="assumed"),
        description="target: added to ttft_s per 1,000 prompt tokens [s]",
    )
    tpot_s: Sourced[Positive] = Field(description="target: time per output token after the first [s]")

    @model_validator(mode="after")
    def _prefixes_have_reuse(self) -> WorkloadSpec:
        if self.reuse is None and any(atom.shared_prefix.value for atom in self.atoms):
            raise ValueError("atoms with a shared_prefix need reuse: how often a cache of a given size has it")
        return self

    def ttft_target_s(self, prompt: float) -> float:
        """The target [s] for the time to first token of a prompt [tokens]."""
        return self.ttft_s.value + self.ttft_s_per_1k_tokens.value * prompt / 1000

    def pytree(self) -> Workload:
        """The sessions, float64 arrays of shape (atoms,), weights summing to 1; without `reuse` no prefix is ever found."""
        columns: dict[str, Any] = {name: np.asarray([getattr(atom, name).value for atom in self.atoms], np.float64) for name in _FIELDS}
        columns["weight"] /= columns["weight"].sum()
        tokens, hits = (self.reuse.tokens, self.reuse.hits) if self.reuse else ((0.0, 1.0), (0.0, 0.0))
        columns |= {"reuse_tokens": np.asarray(tokens, np.float64), "reuse_hits": np.asarray(hits, np.float64)}
        return Workload(**columns)

    def with_session(
        self,
        context: float | None = None,
        turns: float | None = None,
        answer: float | None = None,
        followup: float | None = None,
        think: float | None = None,
    ) -> WorkloadSpec:
        """The workload with other sessions; None leaves as it is. Tokens, and seconds of `think`.

        `context` sets the prompt of a single atom and scales all prompts of several so that their mean is the context; shared prefixes and the cache
        they need scale with the prompts. The others are set in all atoms; `followup` is the length of a question.
        """
        given = {"context": (context, 1.0), "turns": (turns, 1.0), "answer": (answer, 1.0), "followup": (followup, 0.0), "think": (think, 0.0)}
        for name, (value, least) in given.items():
            if value is not None and not least <= value < math.inf:
                raise BadInput(name, value, f"must be a number, {least:g} or more")
        scale = 1.0
        if context is not None:
            sessions = self.pytree()
            scale = context / float(sessions.weight @ sessions.prompt)
        overrides = {"turns": turns, "answer": answer, "question": followup, "think_s": think}
        atoms = tuple(_changed(atom, scale, context if len(self.atoms) == 1 else None, overrides) for atom in self.atoms)
        reuse = self.reuse
        if reuse is not None and scale != 1.0:
            reuse = reuse.model_copy(
                update={"tokens": tuple(size * scale for size in reuse.tokens), "source": f"{reuse.source}; sizes times {scale:.6g}"}
            )
        return self.model_copy(update={"atoms": atoms, "reuse": reuse})


def _changed(atom: Atom, scale: float, prompt: float | None, overrides: dict[str, float | None]) -> Atom:
    """One atom with its prompt scaled (or set, free of rounding) and the given fields replaced."""
    asked = {name: value for name, value in overrides.items() if value is not None}
    changes: dict[str, object] = {name: {"value": value, "source": "asked for", "tag": "assumed"} for name, value in asked.items()}
    if scale != 1.0:
        length = max(atom.prompt.value * scale, 1.0) if prompt is None else prompt
        prefix = atom.shared_prefix
        changes["prompt"] = {"value": length, "source": "asked for", "tag": "assumed"}
        changes["shared_prefix"] = {"value": min(prefix.value * scale, length), "source": f"{prefix.source}; times {scale:.6g}", "tag": prefix.tag}
    return Atom.model_validate({**atom.model_dump(), **changes})


def read_workload(text: str, atoms: int = 32, seed: int = 0) -> WorkloadSpec:
    """The workload of a catalog id (case does not matter), of a YAML or JSON file of `WorkloadSpec`, or of a trace.

    A trace (CSV or JSONL, see `kvopt.inputs.traces`) is reduced to `atoms` atoms and gets the targets of `trace_targets`. Raises `BadInput`.
    """
    key = text.strip().lower()
    if key in ids("workloads"):
        return checked(WorkloadSpec, {"id": key, **read("workloads", key)}, "workload", f"{key}.yaml")
    if not is_path(text):
        raise unknown("workload", text, ids("workloads"))
    path = Path(text)
    if path.suffix.lower() in TRACE_ENDINGS:
        return from_sessions(reduce_atoms(read_trace(path), atoms, seed), path.stem, f"trace {path.name}")
    if path.suffix.lower() not in FILE_ENDINGS:
        raise BadInput("workload", text, f"must be a catalog id, or a file that ends in {', '.join((*FILE_ENDINGS, *TRACE_ENDINGS))}")
    return checked(WorkloadSpec, {"id": path.stem, **read_mapping(path, "workload")}, "workload", path.name)


def trace_targets() -> dict[str, Sourced[float]]:
    """The latency targets of a workload whose file has none: those of the paper's session."""
    spec = read_workload("paper-session")
    return {name: getattr(spec, name) for name in ("ttft_s", "ttft_s_per_1k_tokens", "tpot_s")}


def from_sessions(sessions: Workload, id_: str, source: str) -> WorkloadSpec:
    """A workload of measured sessions, as `read_trace` and `reduce_atoms` give them."""
    measured = [
        Atom.model_validate({name: {"value": float(getattr(sessions, name)[row]), "source": source, "tag": "measured"} for name in _FIELDS})
        for row in range(len(sessions.weight))
    ]
    reuse = Reuse(tokens=tuple(sessions.reuse_tokens.tolist()), hits=tuple(sessions.reuse_hits.tolist()), source=f"{source}, LRU", tag="derived")
    fields = {"id": id_, "description": f"Sessions of {source}.", "atoms": measured, "reuse": reuse, **trace_targets()}
    return WorkloadSpec.model_validate(fields)
