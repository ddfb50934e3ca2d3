"""What multimodal checkpoints hold beside their language model: encoders with weights on every rank, and a profiling pass of their own."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

from pydantic import BaseModel, ConfigDict, Field

from kvopt import catalog
from kvopt.inputs.sourced import NonNegative, Sourced, checked


class Tower(BaseModel):
    """One kind of multimodal checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: str = Field(description="regular expression over the checkpoint's name in lower case")
    parameters: Sourced[NonNegative] = Field(description="of the encoders and projectors, beside the language model's")
    profile_gib: Sourced[NonNegative] = Field(description="peak of the pass over the largest picture or video that the engine profiles [GiB]")
    rotary_gib: Sourced[NonNegative] | None = Field(None, description="tables of rotary positions beyond one of the stated context [GiB]")


@cache
def load_all() -> tuple[Tower, ...]:
    """Every kind in `kvopt/catalog/vision_towers.yaml`."""
    data = catalog.read_yaml(resources.files("kvopt.catalog") / "vision_towers.yaml", "vision towers")
    return tuple(checked(Tower, entry, f"vision towers.{name}", "vision_towers.yaml") for name, entry in data.items())


def tower_of(name: str) -> Tower | None:
    """The encoders of a checkpoint of this name, or none."""
    return next((tower for tower in load_all() if re.search(tower.names, name.lower())), None)
