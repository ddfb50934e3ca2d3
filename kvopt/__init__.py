"""kvopt: which KV-cache compression, precision, parallelism and scheduling settings serve the most users on your accelerators?

    >>> import kvopt
    >>> asked = kvopt.Scenario.of(model="llama-3.1-8b", accelerator="h100-sxm", gpus=1, context="32k")
    >>> asked.engine, asked.accuracy_floor, asked.task  # what is left out has a default, or is the workload's
    ('vllm', 0.95, None)

`kvopt.optimize(asked)` answers it with a `Result`: `print` it, or read `result.data`. All verbs also take the fields themselves, and live in `kvopt.api`;
importing the package compiles nothing and sets no global JAX flag.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvopt.errors import BadInput as BadInput

if TYPE_CHECKING:
    from kvopt.accuracy.next_measurement import next_measurements as next_measurements
    from kvopt.api import analyze as analyze
    from kvopt.api import evaluate as evaluate
    from kvopt.api import optimize as optimize
    from kvopt.api import pareto as pareto
    from kvopt.api import sensitivity as sensitivity
    from kvopt.explanation.explained import explain as explain
    from kvopt.inputs.scenario import Scenario as Scenario
    from kvopt.results import Result as Result
    from kvopt.results import load as load
    from kvopt.run_folder import write_run as write_run
    from kvopt.simulation.verb import simulate as simulate

__all__ = [
    "BadInput",
    "Result",
    "Scenario",
    "analyze",
    "evaluate",
    "explain",
    "load",
    "next_measurements",
    "optimize",
    "pareto",
    "sensitivity",
    "simulate",
    "write_run",
]

_HOMES = {
    **dict.fromkeys(("analyze", "evaluate", "optimize", "pareto", "sensitivity"), "kvopt.api"),
    **dict.fromkeys(("Result", "load"), "kvopt.results"),
    "Scenario": "kvopt.inputs.scenario",
    "explain": "kvopt.explanation.explained",
    "next_measurements": "kvopt.accuracy.next_measurement",
    "simulate": "kvopt.simulation.verb",
    "write_run": "kvopt.run_folder",
}


def __getattr__(name: str) -> Any:
    """Loads a public name from where it lives when it is first used, so that `import kvopt` stays light."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'kvopt' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
