"""Words for the evidence behind an accuracy: task families, and whether a plan lies inside what was measured."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Task = Literal["perplexity", "knowledge", "gsm8k", "longbench", "ruler", "needle", "reasoning", "multi-needle"]
TASKS: tuple[Task, ...] = ("perplexity", "knowledge", "gsm8k", "longbench", "ruler", "needle", "reasoning", "multi-needle")
Coverage = Literal["interpolated", "extrapolated", "none"]
REFERENCE_CONTEXT = 8192  # [tokens] the context that amplitudes are stated at


class Frozen(BaseModel):
    """What a person or the catalog writes: no field unknown, none changed afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid")
