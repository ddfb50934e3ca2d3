"""A scenario with every name resolved: the specifications behind it, and the pytrees that the mathematics takes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import cast

import numpy as np

from kvopt.accuracy.asked import Asked
from kvopt.accuracy.own import Own, read_own
from kvopt.errors import BadInput
from kvopt.inputs import engine as engines
from kvopt.inputs import profile
from kvopt.inputs.accelerator import AcceleratorSpec, read_accelerator
from kvopt.inputs.atoms import reduce_atoms
from kvopt.inputs.evidence import Task
from kvopt.inputs.head_files import read_head_scores
from kvopt.inputs.head_scores import HeadScores
from kvopt.inputs.hf_config import read_model
from kvopt.inputs.layer_bits import LayerBits
from kvopt.inputs.model import ModelSpec
from kvopt.inputs.profile import Profile
from kvopt.inputs.quantities import LatencyTarget, parse_duration, parse_latency, parse_tokens
from kvopt.inputs.reserves import reserves
from kvopt.inputs.scenario import ANY, Scenario
from kvopt.inputs.workload import WorkloadSpec, read_workload
from objectives.goals import Targets
from objectives.types import Accelerator, Architecture, Checkpoint, System, Workload, replace

FEW_ATOMS = 6


def by_head(merged: Architecture) -> Architecture:
    """Merged layers with a column of 0 or 1 for every KV head."""
    heads = np.arange(int(np.max(merged.head_count)))
    return replace(merged, head_count=(heads < merged.head_count).astype(np.float64))


USUAL = "vllm"  # comes first where several engines may run the answer, so that ties go to it


@dataclass(frozen=True)
class Weights:
    """A checkpoint that the person has: its format and how much accuracy it keeps of the 16-bit one's."""

    format: str
    retained: float = 1.0


@dataclass(frozen=True)
class Problem:
    """A resolved scenario. Pytrees have NumPy float64 leaves: nothing is compiled until something is evaluated."""

    scenario: Scenario
    model: ModelSpec
    accelerator: AcceleratorSpec
    engine: engines.EngineSpec
    workload: WorkloadSpec
    checkpoints: tuple[Weights, ...]
    splits_heads: bool = False  # a plan by head is evaluated: merged layers have a column for every KV head

    @cached_property
    def architecture(self) -> Architecture:
        """The model, identical layers merged unless a plan tells them apart."""
        named = self.scenario.head_scores is not None and self.scenario.per == "model"
        merged = self.model.architecture(per_layer=named)
        return by_head(merged) if self.splits_heads else merged

    @cached_property
    def head_scores(self) -> HeadScores | LayerBits | None:
        """What the scenario says of layers and heads; raises `BadInput` where its file does not fit the model."""
        return None if self.scenario.head_scores is None else read_head_scores(self.scenario.head_scores, self.model)

    @cached_property
    def sessions(self) -> Workload:
        """The workload's weighted session atoms."""
        return self.workload.pytree()

    @cached_property
    def few_sessions(self) -> Workload:
        """The same with at most `FEW_ATOMS` atoms: what a search is steered by. What it returns is evaluated on all of them."""
        many = len(self.sessions.weight) > FEW_ATOMS
        return reduce_atoms(self.sessions, atoms=FEW_ATOMS, seed=self.scenario.seed) if many else self.sessions

    @cached_property
    def context(self) -> float:
        """[tokens] mean prompt of the sessions: what metrics at one length are taken at."""
        return float(np.sum(self.sessions.weight * self.sessions.prompt))

    @cached_property
    def task(self) -> Task:
        """Task family that accuracy is judged by."""
        return cast(Task, self.scenario.task or self.workload.task)

    @cached_property
    def question_hidden(self) -> bool:
        """Whether a selection of tokens cannot see the question: more than one turn, or a prefix that other sessions share."""
        return bool(np.any(self.sessions.turns > 1) or np.any(self.sessions.shared_prefix > 0))

    @cached_property
    def own(self) -> Own | None:
        """The person's own measurements of accuracy; none where they name none."""
        path = self.scenario.accuracy_evidence
        return None if path is None else read_own(path, "accuracy_evidence", model=self.model.id)

    @cached_property
    def asked(self) -> Asked:
        """What the evidence is asked of every method."""
        return Asked(self.task, self.context, self.question_hidden, self.model.id, self.own.readings if self.own else ())

    @cached_property
    def keeps_idle_caches(self) -> bool:
        """Whether a thinking user's cache can stay in HBM: not where the engine keeps none between requests; the theory parks everyone who thinks."""
        several = bool(np.any(self.sessions.turns > 1))
        return several and self.scenario.fidelity != "peak" and self.engine.prefix_caching.available

    @cached_property
    def keeps_prefixes(self) -> bool:
        """Whether sessions share a prefix that the engine can hold for them."""
        return bool(np.any(self.sessions.shared_prefix > 0)) and self.engine.prefix_caching.available

    @cached_property
    def splitting_heads(self) -> Problem:
        """The same problem for plans in which KV heads differ."""
        return dataclasses.replace(self, splits_heads=True)

    def device(self, weights: Weights) -> Accelerator:
        """The accelerator with the peak of these weights. At `peak` fidelity a switch goes out and comes in one after the other, as in the paper."""
        calibrated = self.scenario.fidelity == "calibrated"
        found = self.accelerator.pytree(weights.format, self.scenario.host_memory, memory="logged" if calibrated else "reported")
        return found if calibrated else replace(found, host_full_duplex=np.float64(0.0))

    def checkpoint(self, weights: Weights) -> Checkpoint:
        """The bytes of a checkpoint, and its accuracy."""
        return replace(self.model.checkpoint(weights.format), retained=np.float64(weights.retained))

    @cached_property
    def profile(self) -> Profile | None:
        """The fitted profile in use; none at `peak` fidelity."""
        if self.scenario.fidelity == "peak":
            return None
        return self._profile(self.checkpoints[0])

    def _profile(self, weights: Weights) -> Profile:
        return profile.closest(self.accelerator, self.engine.generation, weights.format, self.model.id, self.model.routed)

    def system(self, weights: Weights | None = None) -> System:
        """Everything given, with one of the checkpoints (the first, unless said otherwise)."""
        weights = weights or self.checkpoints[0]
        theory = self.scenario.fidelity == "peak"
        efficiency = profile.peak() if theory else self._profile(weights).efficiency(reserves(self.engine, self.accelerator))
        return System(
            architecture=self.architecture,
            accelerator=self.device(weights),
            efficiency=efficiency,
            checkpoint=self.checkpoint(weights),
            workload=self.sessions,
        )

    @cached_property
    def latency_targets(self) -> tuple[LatencyTarget, LatencyTarget]:
        """The targets for TTFT and TPOT: asked for, or the workload's."""
        ttft = (
            parse_latency(self.scenario.ttft, "ttft") if self.scenario.ttft is not None else LatencyTarget(self.workload.ttft_target_s(self.context))
        )
        tpot = parse_latency(self.scenario.tpot, "tpot") if self.scenario.tpot is not None else LatencyTarget(self.workload.tpot_s.value)
        return ttft, tpot

    @cached_property
    def targets(self) -> Targets:
        """Limits as the mathematics takes them."""
        ttft, tpot = self.latency_targets
        normal = NormalDist()
        numbers = {
            "ttft_s": ttft.seconds,
            "tpot_s": tpot.seconds,
            "tpot_z": max(normal.inv_cdf(tpot.percentile / 100), 0.0) if tpot.percentile else 0.0,
            "accuracy_floor": self.scenario.accuracy_floor,
            "utilisation": self.scenario.utilisation,
            "z": normal.inv_cdf(self.scenario.confidence),
        }
        percentile = None if ttft.percentile is None else np.float64(ttft.percentile / 100)
        return Targets(ttft_percentile=percentile, **{name: np.float64(value) for name, value in numbers.items()})

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know before they read the answer."""
        found = []
        longest = float(np.max(self.sessions.prompt + self.sessions.turns * (self.sessions.question + self.sessions.answer)))
        if self.model.max_context and longest > self.model.max_context:
            found.append(
                f"context: sessions of {longest:,.0f} tokens exceed the {self.model.max_context:,} that {self.model.name} states; computed anyway"
            )
        missing = self.accelerator.missing()
        if missing:
            found.append(f"accelerator: {self.accelerator.id} has no known {', '.join(missing)}: what needs it is null")
        if self.own is not None:
            found += self.own.warnings(self.model.id)
        return tuple(found)

    def require_known(self) -> None:
        """Raises `BadInput` where the model's or accelerator's unknown numbers leave nothing to plan with."""
        arch = self.architecture
        unknown_fields = [name for name in ("parameters", "active_parameters", "hidden", "vocabulary") if math.isnan(float(getattr(arch, name)))]
        if unknown_fields:
            raise BadInput(
                "model", self.model.id, f"its source does not hold {', '.join(unknown_fields)}, which a plan needs; give its full config.json"
            )


def resolve(scenario: Scenario) -> Problem:
    """Reads everything that a scenario names. Raises `BadInput` for what is not known or does not fit together.

    Where the scenario takes any engine, the first that suits: `on_each_engine` gives the others.
    """
    model = read_model(scenario.model)
    accelerator = read_accelerator(scenario.accelerator)
    workload = read_workload(scenario.workload, seed=scenario.seed).with_session(
        context=None if scenario.context is None else parse_tokens(scenario.context, "context"),
        turns=scenario.turns,
        answer=None if scenario.answer is None else parse_tokens(scenario.answer, "answer"),
        followup=None if scenario.followup is None else parse_tokens(scenario.followup, "followup", least=0),
        think=None if scenario.think is None else parse_duration(scenario.think, "think", zero=True),
    )
    faults = {engine: misfit(engine, scenario, accelerator) for engine in _asked(scenario)}
    engine = next((engine for engine, fault in faults.items() if fault is None), None)
    if engine is None:
        raise next(fault for fault in faults.values() if fault is not None)
    if scenario.tp and model.query_heads % scenario.tp:
        raise BadInput("tp", scenario.tp, f"must divide the {model.query_heads} query heads of {model.name}")
    if scenario.pp and scenario.pp > model.layers:
        raise BadInput("pp", scenario.pp, f"must not exceed the {model.layers} layers of {model.name}")
    problem = Problem(scenario, model, accelerator, engine, workload, _checkpoints(scenario.weights, model))
    for weights in problem.checkpoints:
        problem.accelerator.peak(weights.format)
    _ = problem.own  # raises where the file of measurements cannot be used
    if scenario.head_scores is not None and problem.head_scores is not None and scenario.methods is None and scenario.per == "model":
        raise BadInput("head_scores", scenario.head_scores, "needs --methods to say what is kept, e.g. duoattention:0.5, snapkv:0.25 or kvtuner")
    return problem


def misfit(engine: engines.EngineSpec, scenario: Scenario, accelerator: AcceleratorSpec) -> BadInput | None:
    """Why the engine cannot be asked this; none where it can."""
    if engine.vendors and accelerator.vendor and accelerator.vendor not in engine.vendors:
        makers = " and ".join(engine.vendors)
        return BadInput("engine", engine.id, f"runs on accelerators of {makers}, and {accelerator.id} is one of {accelerator.vendor}")
    for name, setting in (("tp", engine.parallelism.tensor), ("pp", engine.parallelism.pipeline)):
        if setting is None and (getattr(scenario, name) or 1) > 1:
            return BadInput(name, getattr(scenario, name), f"{engine.id} has no {'tensor' if name == 'tp' else 'pipeline'} parallelism")
    return None


def on_each_engine(problem: Problem) -> tuple[Problem, ...]:
    """The problem on every engine that may run its answer: on its own, or on all that suit where the scenario takes any."""
    suited = [engine for engine in _asked(problem.scenario) if misfit(engine, problem.scenario, problem.accelerator) is None]
    return tuple(problem if engine.id == problem.engine.id else dataclasses.replace(problem, engine=engine) for engine in suited)


def unsuited(problem: Problem) -> dict[str, str]:
    """The engines that are left out although the scenario takes any, and why."""
    faults = {engine.id: misfit(engine, problem.scenario, problem.accelerator) for engine in _asked(problem.scenario)}
    return {name: fault.allowed for name, fault in faults.items() if fault is not None}


def _asked(scenario: Scenario) -> tuple[engines.EngineSpec, ...]:
    if scenario.engine != ANY:
        return (engines.load(scenario.engine),)
    return tuple(sorted(engines.load_all(), key=lambda engine: engine.id != USUAL))


def _checkpoints(text: str | None, model: ModelSpec) -> tuple[Weights, ...]:
    if text is None:
        return (Weights(model.weight_format),)
    found = []
    for part in text.split(","):
        name, _, kept = part.strip().partition(":")
        try:
            retained = float(kept) if kept else 1.0
        except ValueError:
            retained = math.nan
        if not 0 < retained <= 1:
            raise BadInput("weights", part, "an accuracy after the colon must be above 0 and at most 1")
        model.checkpoint(name)  # raises for an unknown format
        found.append(Weights(name, retained))
    return tuple(found)
