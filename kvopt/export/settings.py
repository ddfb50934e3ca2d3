"""What every engine is told of a plan, in the engines' own units: per GPU, per server, whole tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from kvopt.capacity import deployed
from kvopt.capacity.constants import engines as ruled
from kvopt.capacity.deployed import Capacity
from kvopt.capacity.formats import FORMATS
from kvopt.errors import BadInput
from kvopt.inputs import engine as engines
from kvopt.inputs import method as methods
from kvopt.inputs.engine import EngineSpec
from kvopt.inputs.method import MethodSpec
from kvopt.problem import Problem, resolve

GIB = 2**30
NEEDED = (
    *("engine", "methods", "where", "weights", "tp", "pp", "replicas", "dcp", "attention_dp", "expert_parallel", "prefill_groups"),
    *("idle", "chunk", "max_num_seqs", "idle_resident", "prefix_cache_tokens"),
)
"""Settings of a plan that every exporter reads."""


@dataclass(frozen=True)
class Settings:
    """One plan, read for one engine.

    A plan counts by *slot*: the `tp` accelerators of one pipeline stage, each with its own sessions. A *server* is what one engine process group runs: `pp`
    slots that hold the weights once. `replicas` servers make the deployment, `prefill_groups` of them prefill only.
    """

    scenario: Mapping[str, Any]
    point: Mapping[str, Any]
    engine: EngineSpec  # the engine that is told, which need not be the plan's
    problem: Problem | None  # none where a file that the scenario names can no longer be read
    unread: str = ""  # why there is no problem

    @property
    def plan(self) -> Mapping[str, Any]:
        """The plan as plain values."""
        return self.point["plan"]

    @property
    def tables(self) -> Mapping[str, Any]:
        """What the plan keeps by layer and head, by setting: as a search found it, or as scores made it; empty where all are alike."""
        tables: Mapping[str, Any] = self.plan.get("blocks") or (self.point.get("heads") or {}).get("tables") or {}
        return tables

    @property
    def model(self) -> str:
        """The model's name: on the hub, or what the file it was read from calls it. `kvopt.export.remarks.model` is what an engine is told."""
        return self.problem.model.name if self.problem else str(self.scenario["model"])

    @property
    def own(self) -> bool:
        """Whether the plan was made for this engine."""
        return self.plan["engine"] == self.engine.id

    @property
    def tp(self) -> int:
        """Accelerators of one slot."""
        return int(self.plan["tp"])

    @property
    def pp(self) -> int:
        """Pipeline stages of one server."""
        return int(self.plan["pp"])

    @property
    def attention_dp(self) -> int:
        """Ranks of a slot that hold whole sessions."""
        return int(self.plan["attention_dp"])

    @property
    def gpus(self) -> int:
        """Accelerators of one server."""
        return self.tp * self.pp

    @property
    def replicas(self) -> int:
        """Servers."""
        return int(self.plan["replicas"])

    @property
    def prefill_servers(self) -> int:
        """Servers that only prefill."""
        return int(self.plan["prefill_groups"])

    @property
    def chunk(self) -> int:
        """Prompt tokens of one step of a slot."""
        return int(self.plan["chunk"])

    @property
    def sequences(self) -> int:
        """Requests in flight of one server: its slots' together."""
        return max(1, int(self.plan["max_num_seqs"])) * self.pp

    @property
    def rank_sequences(self) -> int:
        """Requests in flight of one rank that holds whole sessions; without attention-data parallelism, of one server."""
        return math.ceil(self.sequences / self.attention_dp)

    @property
    def rank_chunk(self) -> int:
        """Prompt tokens of one step of such a rank: the ranks of a slot step together."""
        return math.ceil(self.chunk / self.attention_dp)

    @property
    def stored(self) -> str | None:
        """Format of the weights of the model's own checkpoint; none where it is not known."""
        return self.problem.model.weight_format if self.problem else None

    @property
    def experts(self) -> bool:
        """Whether the model routes tokens to experts."""
        return bool(self.problem and self.problem.model.routed)

    @cached_property
    def longest(self) -> int | None:
        """[tokens] the longest session at its end; none where it is not known any more."""
        if self.problem:
            sessions = self.problem.sessions
            return int(np.max(sessions.prompt + sessions.turns * (sessions.question + sessions.answer)))
        kept = self.point.get("engine_capacity")
        return int(kept["max_model_len"]) if kept else None

    @cached_property
    def used(self) -> tuple[MethodSpec, ...]:
        """The plan's methods."""
        return tuple(methods.load(name) for name in self.plan["methods"])

    @property
    def format(self) -> str:
        """The precision of the cache, as the engine's cache format is called in the rules of capacity; `auto` in 16 bit."""
        return self.told.rsplit(maxsplit=1)[-1].strip("{}") if self.told else "auto"

    @cached_property
    def told(self) -> str:
        """What tells the engine the precision of the cache: its catalog's setting; empty in 16 bit or where it has none."""
        names = {method.id for method in self.used if method.dimension == "bits"}
        return next((entry.setting for entry in self.engine.kv_formats if entry.method in names and self._kernels(entry.method)), "")

    def _kernels(self, method: str) -> bool:
        card = self.problem.accelerator if self.problem else None
        return card is None or method in self.engine.formats_on(card.arch, card.id)

    @cached_property
    def capacity(self) -> Capacity | None:
        """What the rules of this engine's version say of one server; none where there are none: unknown sizes, other engines, other formats."""
        problem, format_ = self.problem, self.format
        if problem is None or self.engine.id not in ruled() or format_ not in FORMATS or problem.model.parameters.total is None:
            return None
        if "blocks" in self.plan:  # layers of several precisions: pages are padded by rules that no log has shown
            return None
        try:
            return deployed(
                problem.model,
                problem.accelerator,
                engine=self.engine.id,
                version=self.engine.version,
                tp=self.tp // self.attention_dp,
                pp=self.pp,
                dp=self.attention_dp,
                dcp=int(self.plan["dcp"]),
                max_sequences=self.rank_sequences,
                chunk=self.rank_chunk,
                max_model_len=self.longest or 0,
                kv_format=format_,
                weights=self.plan["weights"],
            )
        except BadInput:  # a model whose caches follow rules of their own
            return None

    def _limit(self, name: str) -> float | None:
        return next((row["limit"] for row in self.point.get("constraints") or () if row["name"] == name), None)

    @cached_property
    def limit_bytes(self) -> float | None:
        """[bytes] per GPU that the plan may fill: the limit of its `hbm` constraint, which is the pool at the scenario's confidence. A slot is `tp` GPUs."""
        limit = self._limit("hbm")
        return None if limit is None else limit / self.tp

    @cached_property
    def pool_bytes(self) -> int | None:
        """[bytes] per GPU to state as the pool: the smaller of the plan's limit and the lower end (5 %) of what the rules predict for these settings.

        An engine that is told a size does not check it against what the weights and activations leave, so more than the lower end is a bet on the spread
        of start-up logs; more than the plan's limit is memory that its figures do not count on. None where neither is known.
        """
        ends = [self.limit_bytes] if self.own else []
        ends += [self.capacity.lower.pool_bytes] if self.capacity else []
        if not self.capacity and not ends:
            ends = [self.limit_bytes]
        known = [end for end in ends if end is not None and end > 0]
        return int(min(known)) if known else None

    @property
    def used_bytes(self) -> float | None:
        """[bytes] per GPU that the plan fills in the mean."""
        used = self.point["metrics"].get("memory_used_bytes")
        return None if used is None else used / self.tp

    @property
    def parks(self) -> bool:
        """Whether idle caches go to host memory: the plan parks, and someone thinks."""
        return self.plan["idle"] == "park" and bool(self.point["metrics"].get("host_memory_used_bytes"))

    @cached_property
    def host_bytes(self) -> int:
        """[bytes] of host memory of one server for parked caches.

        All that the scenario gives where it gives any. Else what the plan parks in the mean and as much as it holds in HBM, since host tiers keep a copy of
        what runs too (write-through), at most the limit of the plan's `host_memory` constraint.
        """
        given = self.scenario.get("host_memory")
        if given:
            return int(given * 1e9) * self.gpus
        limit = self._limit("host_memory")
        wanted = self.point["metrics"]["host_memory_used_bytes"] + (self.point["metrics"].get("memory_used_bytes") or 0.0)
        return int(min(wanted, limit) if limit else wanted) * self.pp

    @property
    def reuses(self) -> bool:
        """Whether the plan counts on caches that outlive their request: parked, resident or shared by sessions."""
        return self.parks or self.plan["idle_resident"] > 0 or self.plan["prefix_cache_tokens"] > 0


def settings(engine: str, scenario: Mapping[str, Any], point: Mapping[str, Any]) -> Settings:
    """A point read for an engine of the catalog. Raises `BadInput` for a point without a plan."""
    if not point or not point.get("plan"):
        raise BadInput("point", "no plan", "nothing meets the targets, so there is no plan to export")
    missing = next((name for name in NEEDED if name not in point["plan"]), None)
    if missing:
        raise BadInput("plan", missing, "missing from the saved plan: another version of kvopt wrote it, so run it again")
    return Settings(scenario, point, engines.load(engine), *_resolved(scenario))


def _resolved(scenario: Mapping[str, Any]) -> tuple[Problem | None, str]:
    """The scenario's specifications, from the catalog or from the files it names; none where one of them cannot be read any more, and why."""
    from kvopt.inputs.scenario import Scenario

    asked = dict(scenario.get("asked") or {})
    try:
        return resolve(Scenario.of(**{name: value for name, value in asked.items() if name not in ("head_scores", "accuracy_evidence")})), ""
    except BadInput as error:
        return None, str(error)


def on(found: Settings, engine: str) -> Settings:
    """The same plan read for another engine."""
    return replace(found, engine=engines.load(engine))
