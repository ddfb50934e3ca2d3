"""The sessions of a scenario as a load generator is told them: mean lengths in whole tokens, and rates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kvopt.export.settings import Settings


@dataclass(frozen=True)
class Load:
    """Mean session of a workload, and how fast a plan serves its turns."""

    prompt: int  # [tokens] before the first question
    shared_prefix: int  # [tokens] of it that other sessions have too
    growth: int  # [tokens] that follow the prompt, mean over the turns: questions, and answers before the turn's own
    answer: int  # [tokens]
    turns: int
    varied: bool  # whether sessions differ
    turns_per_s: float  # of one server command, at the plan's rate

    @property
    def input_tokens(self) -> int:
        """[tokens] of one request, mean over the turns."""
        return self.prompt + self.growth


def load(found: Settings, gpus: int) -> Load | None:
    """The load of `gpus` of the plan's accelerators; none where the workload cannot be read any more or the plan serves nothing."""
    rate = found.point["metrics"].get("sessions_per_gpu_hour")
    if found.problem is None or not rate:
        return None
    w = found.problem.sessions

    def mean(values: object) -> float:
        return float(np.sum(w.weight * np.asarray(values)))

    turns = max(1, round(mean(w.turns)))
    question, answer = mean(w.question), mean(w.answer)
    varied = any(np.ptp(np.asarray(values)) > 0 for values in (w.prompt, w.question, w.answer, w.turns))
    return Load(
        prompt=round(mean(w.prompt)),
        shared_prefix=round(mean(w.shared_prefix)),
        growth=max(1, math.ceil(question + (turns - 1) / 2 * (question + answer))),
        answer=max(1, round(answer)),
        turns=turns,
        varied=bool(varied),
        turns_per_s=rate / 3600 * gpus * mean(w.turns),
    )
