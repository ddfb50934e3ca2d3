"""What the evidence is asked: the task, the length, the model and what is known of the question, with a person's own measurements."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from kvopt.accuracy.reading import Reading
from kvopt.inputs.evidence import Task


@dataclass(frozen=True)
class Asked:
    """What a plan's accuracy depends on beside its methods and what they keep."""

    task: Task
    context: float  # [tokens]
    question_hidden: bool  # more than one turn, or a shared prefix: a selection cannot see the question
    model: str | None = None  # catalog id, or a name as in published tables; None: any model
    own: tuple[Reading, ...] = ()  # a person's own measurements, which count beside the published ones

    @cached_property
    def _hash(self) -> int:
        return hash((self.task, self.context, self.question_hidden, self.model, self.own))

    def __hash__(self) -> int:
        """Kept: a search asks the same thousands of times, and own measurements are many fields."""
        return self._hash
