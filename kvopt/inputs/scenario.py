"""The question: one model, one kind of accelerator, one kind of traffic, and what the answer must respect."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kvopt.catalog import ids
from kvopt.errors import BadInput, unknown
from kvopt.inputs.evidence import TASKS
from kvopt.inputs.quantities import parse_duration, parse_latency, parse_tokens
from kvopt.inputs.sourced import checked

Count = int | float | str
ANY = "any"  # instead of an engine: whichever of the catalog's serves most


class Scenario(BaseModel):
    """What a person asks, as they write it. Every field has a default: together they are the example of arXiv 2405.08944.

    Token counts read `50k` (50,000) or `50K` (51,200), durations `10s` or `50ms`, latency targets also `p95:2s`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field("yi-34b-200k", description="catalog id, Hugging Face name, or a config.json (or its folder)")
    accelerator: str = Field("a100-80-sxm", description="catalog id, or a YAML file of one's own")
    gpus: int = Field(2, description="accelerators in all")
    tp: int | None = Field(None, description="tensor parallelism; absent: optimize searches it, analyze takes the largest that fits")
    pp: int | None = Field(None, description="pipeline stages; absent: optimize searches them, analyze takes 1")
    host_memory: float | None = Field(None, description="host memory per accelerator [GB]; absent: the catalog's assumption")
    workload: str = Field("paper-session", description="catalog id, YAML file, or a trace (Azure CSV, Mooncake JSONL, one's own CSV)")
    context: Count | None = Field(None, description="prompt before the first question [tokens]; absent: the workload's")
    turns: float | None = Field(None, description="questions per session; absent: the workload's")
    answer: Count | None = Field(None, description="one answer [tokens]; absent: the workload's")
    followup: Count | None = Field(None, description="one question [tokens]; absent: the workload's")
    think: Count | None = Field(None, description="between an answer and the next question [s]; absent: the workload's")
    fidelity: Literal["peak", "calibrated"] = Field(
        "calibrated", description="peak: the theory, every peak reached; calibrated: fitted efficiencies and reserves"
    )
    engine: str = Field("vllm", description="engine that must be able to run the deployable answer; any: whichever serves most")
    weights: str | None = Field(
        None, description="formats of the checkpoints at hand with their accuracy, e.g. bf16,fp8:0.995; absent: the model's own"
    )
    accuracy_floor: float = Field(0.95, description="accuracy kept at least, relative to the uncompressed model")
    task: str | None = Field(None, description="task family that accuracy is judged by; absent: the workload's")
    confidence: float = Field(0.9, description="confidence that memory, TTFT, TPOT and accuracy hold; 0.5 asks for the mean")
    ttft: Count | None = Field(None, description="target for the time to first token, also p95:2s; absent: the workload's")
    tpot: Count | None = Field(None, description="target for the time per output token, also p95:50ms; absent: the workload's")
    utilisation: float = Field(0.9, description="share of the time the prefill queue and the host link may be busy")
    chunk: Count | None = Field(None, description="prompt tokens per step; absent: optimize searches them, analyze takes the engine's default")
    max_num_seqs: int | None = Field(None, description="cap on the requests in flight per group; absent: the engine's default caps it")
    idle: Literal["park", "recompute"] | None = Field(
        None, description="fate of idle caches that leave HBM; absent: optimize searches it, analyze takes the better"
    )
    methods: str | None = Field(
        None, description="methods to use, with what they keep, e.g. fp8 or duoattention:0.5,kivi:4; analyze: absent means none; a search: only these"
    )
    head_scores: str | None = Field(
        None,
        description="how much layers and heads matter: DuoAttention gates .tsv, Retrieval_Head .json, KVTuner .yaml, or gates or retrieval for the usual "
        "profile; analyze, simulate: what they keep of --methods; a search: with --per",
    )
    per: Literal["model", "layer", "head"] = Field(
        "model", description="a search: one setting for the whole model, or one per layer or KV head where a method and what runs it allow that"
    )
    accuracy_evidence: str | None = Field(
        None, description="accuracies measured on this model, which count beside the published ones: a CSV, or what calibrate --accuracy wrote"
    )
    seed: int = Field(0, description="seed of the search")

    @classmethod
    def of(cls, **fields: Any) -> Scenario:
        """A validated scenario. Raises `BadInput`: one line that names the field, the value and what is allowed.

        >>> Scenario.of(model="llama-3.1-70b", gpus=4, tp=3)
        Traceback (most recent call last):
        kvopt.errors.BadInput: tp: 3: must divide the 4 gpus
        """
        for name in fields:
            if name not in cls.model_fields:
                raise unknown("field", name, cls.model_fields)
        for name, value in fields.items():
            if isinstance(value, bool):
                raise BadInput(name, value, "must be a number or a name")
            if isinstance(value, str) and not value.strip():
                raise BadInput(name, "(empty)", "must not be empty")
        try:
            scenario = checked(cls, fields, "scenario", "the scenario")
        except BadInput as error:
            allowed = error.allowed.removesuffix(", in the scenario").split(", unable to parse")[0].replace("input should be", "must be")
            raise BadInput(error.field.removeprefix("scenario."), error.value, allowed) from None
        scenario.check()
        return scenario

    def check(self) -> None:
        """Refuses what no deployment can be. Raises `BadInput`."""
        for name in ("gpus", "tp", "pp", "max_num_seqs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInput(name, value, "must be 1 or more")
        for name, value in (("tp", self.tp), ("pp", self.pp)):
            if value is not None and value > self.gpus:
                raise BadInput(name, value, f"must not exceed the {self.gpus} gpus")
        if self.tp and self.pp and self.gpus % (self.tp * self.pp):
            raise BadInput("tp * pp", self.tp * self.pp, f"must divide the {self.gpus} gpus")
        for name in ("tp", "pp"):
            if getattr(self, name) and self.gpus % getattr(self, name):
                raise BadInput(name, getattr(self, name), f"must divide the {self.gpus} gpus")
        if not 0 < self.accuracy_floor <= 1:
            raise BadInput("accuracy_floor", self.accuracy_floor, "must be above 0 and at most 1")
        if not 0.5 <= self.confidence < 1:
            raise BadInput("confidence", self.confidence, "must be at least 0.5 and below 1")
        if not 0 < self.utilisation < 1:
            raise BadInput("utilisation", self.utilisation, "must be between 0 and 1")
        if self.turns is not None and not (math.isfinite(self.turns) and self.turns >= 1):
            raise BadInput("turns", self.turns, "must be 1 or more")
        if self.host_memory is not None and not 0 <= self.host_memory < math.inf:
            raise BadInput("host_memory", self.host_memory, "must be a number of GB, zero or more")
        if self.task is not None and self.task not in TASKS:
            raise unknown("task", self.task, TASKS)
        if self.engine not in (ANY, *ids("engines")):
            near = unknown("engine", self.engine, ids("engines")).allowed.partition(" one of")[0].removesuffix(";")
            raise BadInput("engine", self.engine, f"{near}; one of {', '.join(ids('engines'))}, or {ANY}")
        for name in ("context", "answer", "chunk"):
            if getattr(self, name) is not None:
                parse_tokens(getattr(self, name), name)
        if self.followup is not None:
            parse_tokens(self.followup, "followup", least=0)
        if self.think is not None:
            parse_duration(self.think, "think", zero=True)
        for name in ("ttft", "tpot"):
            if getattr(self, name) is not None:
                parse_latency(getattr(self, name), name)
