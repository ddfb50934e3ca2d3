"""What `kvopt catalog profiles` shows: the fitted groups, and one of them with all its parameters."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from kvopt.errors import BadInput, unknown
from kvopt.inputs import profile
from kvopt.inputs.accelerator import read_accelerator
from kvopt.inputs.hf_config import read_model
from kvopt.inputs.hierarchy import PARAMETERS, WEIGHT_CLASSES, narrowing
from kvopt.inputs.profile import Profile

IN_MS = ("server_s",)  # other times are shown in microseconds
SHOWN = ("mfu", "mbu", "prefill_layer_s", "decode_layer_s", "parallel_layer_s")


def groups() -> list[dict[str, Any]]:
    """One entry per fitted group: what it rests on, and its main parameters, each with its spread."""
    return [_entry(name, SHOWN) for name in profile.fitted().groups]


def group(asked: str) -> dict[str, Any]:
    """A fitted group with all parameters and the sources of its rows. Raises `BadInput` with the nearest names."""
    known = profile.fitted().groups
    name = next((name for name in known if name == " ".join(asked.lower().split())), None)
    if name is None:
        raise unknown("profile", asked, known)
    return {**_entry(name, tuple(PARAMETERS)), "models": list(known[name].models), "sources": list(known[name].sources)}


def _entry(name: str, shown: tuple[str, ...]) -> dict[str, Any]:
    accelerator, engine, weights = _parts(name)
    known = profile.fitted().groups[name]
    found = _profile(name)
    return {
        "id": name,
        "accelerator": accelerator,
        "engine": engine,
        "weights": weights,
        "rows": known.rows,
        "models": len(known.models),
        "parameters": {parameter: _figure(parameter, found) for parameter in shown},
        "prefill_log_sd": found.prefill_log_sd,
        "decode_log_sd": found.decode_log_sd,
    }


def _parts(name: str) -> tuple[str, str, str]:
    accelerator, _, rest = name.partition(" ")
    engine, _, weights = rest.rpartition(" ")
    return accelerator, engine, weights


def _profile(name: str) -> Profile:
    """The profile of a group; of mixtures of experts where nothing else was measured in it."""
    accelerator, engine, weights = _parts(name)
    models = profile.fitted().groups[name].models
    form = next((form for form, one in WEIGHT_CLASSES.items() if one == weights), weights)
    return profile.closest(read_accelerator(accelerator), engine, form, models[0], all(_routed(model) for model in models))


def _routed(model: str) -> bool:
    try:
        return read_model(model).routed
    except BadInput:
        return False


def _figure(parameter: str, found: Profile) -> dict[str, Any]:
    about, figure = PARAMETERS[parameter], found.figures[parameter]
    unit, factor = (about.unit, 1.0) if about.unit != "s" else ("ms", 1e3) if parameter in IN_MS else ("us", 1e6)
    return {"value": figure.value * factor, "log_sd": figure.log_sd * narrowing(parameter, figure.value), "unit": unit, "about": about.about}


def show(asked: str | None, console: Console) -> None:
    """Prints all groups, or the one asked for."""
    if asked is None:
        table = Table("accelerator", "engine", "weights", box=None, caption="± one standard deviation; times per layer in us", caption_justify="left")
        for column in ("rows", "models", "MFU", "MBU", "prefill us", "decode us", "more, parallel us"):
            table.add_column(column, justify="right")
        for entry in groups():
            numbers = (text(entry["parameters"][name]) for name in SHOWN)
            table.add_row(entry["accelerator"], entry["engine"], entry["weights"], str(entry["rows"]), str(entry["models"]), *numbers)
        console.print(table)
        return
    entry = group(asked)
    console.print(f"{entry['id']}: {entry['rows']} rows, {len(entry['models'])} models", highlight=False)
    table = Table("parameter", box=None)
    table.add_column("value", justify="right")
    for column in ("unit", "meaning"):
        table.add_column(column)
    for name, figure in entry["parameters"].items():
        table.add_row(name, text(figure), figure["unit"], figure["about"])
    console.print(table)
    console.print(f"spread of ln(measured / predicted): prefill and TTFT {entry['prefill_log_sd']:.2f}, decode and TPOT {entry['decode_log_sd']:.2f}")
    console.print(f"models: {', '.join(entry['models'])}", highlight=False)
    console.print(f"sources: {'; '.join(entry['sources'])}", highlight=False)


def text(figure: dict[str, Any]) -> str:
    """A value with the standard deviation of its logarithm: `0.61 ±9%`."""
    return f"{figure['value']:.3g} ±{100 * figure['log_sd']:.0f}%"
