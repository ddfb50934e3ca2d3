"""What a person must know beside the settings: what they are for, what they rest on, and what of the plan they leave out."""

from __future__ import annotations

from pathlib import Path

from kvopt import wording
from kvopt.capacity.deployed import Held
from kvopt.capacity.stated import stated
from kvopt.export import presses
from kvopt.export.servers import MOST_GPUS, SERVERS
from kvopt.export.settings import Settings
from kvopt.inputs import engine as engines
from kvopt.inputs.choice import FIELDS_OF
from kvopt.inputs.method import MethodSpec
from kvopt.inputs.model_names import resolve
from kvopt.inputs.sourced import FILE_ENDINGS

VARIABLE = '"$MODEL"'
"""The checkpoint in a command, where its name is not known."""
QUANTIZED_AT_LOADING = {("bf16", "fp8"): "fp8", ("fp16", "fp8"): "fp8"}
"""`--quantization` where vLLM and SGLang make the plan's weights from the published ones themselves, by (published, plan's)."""


def heading(found: Settings) -> list[str]:
    """What the settings are for: the first comment of every file."""
    plan, engine = found.plan, found.engine
    methods = wording.labelled(plan) if found.own else wording.methods(plan)
    where = f"{found.model} on {found.scenario['gpus']} x {found.scenario['accelerator']}"
    what = f"{where}: {methods}; {wording.grouping(plan)}; {plan['weights']} weights"
    lines = [f"{what}.", f"Settings of {engine.name} {engine.version}, as kvopt writes them."]
    if not found.own:
        lines.append(f"The plan was made for {plan['engine']}: times and memory are those of {plan['engine']}, and differ here.")
    return lines


def lost(found: Settings) -> list[str]:
    """That the scenario cannot be read, where it cannot; and a line for each method that the engine has no setting for, with what writes or runs it."""
    return [*unread(found), *_methods(found)]


def unread(found: Settings) -> list[str]:
    """What is not checked where a file that the scenario names is gone."""
    return [] if found.problem else [f"the scenario can no longer be read ({found.unread}): checkpoint, length and pool are not checked"]


def _methods(found: Settings) -> list[str]:
    return [unsaid(found, method, found.engine.name) for method in found.used if not (method.dimension == "bits" and found.told)]


def consequence(found: Settings) -> list[str]:
    """What it means that methods are left out; nothing where none is."""
    if not _methods(found):
        return []
    full = found.point["metrics"].get("kv_bytes_per_session")
    size = f" than the {wording.bytes_(full)} a session that the plan counts" if full else ""
    return [f"without the methods that cannot be told caches are larger{size}: fewer sessions fit, and the plan's figures do not hold here"]


def unsaid(found: Settings, method: MethodSpec, name: str) -> str:
    """That `name` has no setting for a method, and what has."""
    if method.dimension == "bits":
        on = f" with kernels for {found.scenario['accelerator']}" if any(entry.method == method.id for entry in found.engine.kv_formats) else ""
        return f"{method.id} ({wording.precision(found.plan)}): {name} has no cache format for it{on}{elsewhere(method)}"
    shares = wording.keeps({field: found.plan[field] if field in FIELDS_OF[method.dimension] else 1.0 for field in wording.KEPT})
    return f"{method.id} ({method.dimension}{f'; the plan {shares}' if shares else ''}): {name} has no setting for it{elsewhere(method)}"


def elsewhere(method: MethodSpec) -> str:
    """Which exporter, or else which library, has a method."""
    exporters = [method.id] if method.id in ("duoattention", "kvtuner") else []
    exporters += ["kvpress"] if presses.written(method) else []
    exporters += [name for name in SERVERS if method.id in {entry.method for entry in engines.load(name).kv_formats}]
    if exporters:
        return "; written by: " + " or ".join(f"kvopt export {name}" for name in exporters)
    return f"; runs in {method.runs_in[0].setting}" if method.runs_in else "; no library is known that runs it"


def predicted(found: Settings) -> Held | None:
    """What one engine holds in the pool that is stated; none where no rules are known."""
    return stated(found.capacity, found.pool_bytes, found.reuses) if found.capacity and found.pool_bytes else None


def pool(found: Settings, setting: str) -> list[str]:
    """Where the bytes of the pool are from, and whether the plan fits in them."""
    if found.pool_bytes is None:
        return ["the pool is left to the engine: the plan's memory is not known"]
    lower = found.capacity.lower.pool_bytes if found.capacity else None
    limit = found.limit_bytes if found.own else None
    why = []
    if limit is not None:
        why.append(f"the plan may fill {wording.bytes_(limit)} a GPU at {100 * found.scenario['confidence']:g} % confidence")
    if lower is not None:
        why.append(f"the rules of {found.engine.name} {found.engine.version} predict at least {wording.bytes_(lower)} in 95 of 100 start-ups")
    smaller = "; the smaller is stated" if len(why) > 1 else ""
    lines = [f"{setting} {found.pool_bytes:,} bytes a GPU{': ' if why else ''}{'; '.join(why)}{smaller}"]
    if found.used_bytes is not None and found.used_bytes > found.pool_bytes and found.own:
        short = found.used_bytes - found.pool_bytes
        lines.append(f"the plan fills {wording.bytes_(short)} a GPU more in the mean than is stated: fewer idle caches stay in HBM")
    return lines


def spread(found: Settings) -> list[str]:
    """Hosts and idle caches: what no setting says but the plan counts on."""
    lines = []
    total = found.gpus * found.replicas
    if found.gpus > MOST_GPUS:
        lines.append(f"one server spans {found.gpus} GPUs: start it over several hosts as {found.engine.name} documents it")
    elif total > MOST_GPUS:
        lines.append(f"{total} GPUs are more than one host of {MOST_GPUS}: start each server where its GPUs are")
    stay = found.plan["idle_resident"]
    if 0 < stay < 1:
        lines.append(
            f"the plan keeps {100 * stay:.0f} % of idle caches in HBM: engines keep the most recent ones that fit, and have no setting for the share"
        )
    return lines


def quantization(found: Settings) -> str | None:
    """`--quantization` where vLLM and SGLang make the plan's weights themselves; none where the checkpoint says it."""
    return QUANTIZED_AT_LOADING.get((found.problem.model.weight_format, found.plan["weights"])) if found.problem else None


def unnamed(found: Settings) -> list[str]:
    """What to do where no engine can load the model by its name: it was given as a file or a folder, or cannot be read any more. Empty with a name."""
    asked = str((found.scenario.get("asked") or {}).get("model") or "")
    written_as_path = asked.startswith(("/", ".", "~")) or Path(asked).suffix.lower() in FILE_ENDINGS  # as `hf_config.read_model` takes it
    by_path = bool(asked) and (written_as_path or resolve(asked) is None)
    return ["put the checkpoint's path or name into MODEL"] if by_path or found.problem is None else []


def model(found: Settings, quantizes: bool = False) -> str:
    """The checkpoint in a command: a name on the hub, or a variable where that is not known or its weights are not the plan's.

    `quantizes`: the engine makes the weights of `QUANTIZED_AT_LOADING` itself.
    """
    other = checkpoint(found) is not None and not (quantizes and quantization(found))
    return VARIABLE if other or unnamed(found) else found.model


def check(model: str) -> str:
    """The line of a script that stops where the variable is not set; none for a name."""
    return ': "${MODEL:?the checkpoint to serve}"\n\n' if model == VARIABLE else ""


def checkpoint(found: Settings) -> str | None:
    """What must be done about the weights where the model's own checkpoint is in another format; none where it is the plan's."""
    own = found.problem.model.weight_format if found.problem else found.plan["weights"]
    if found.plan["weights"] == own:
        return None
    return f"weights in {found.plan['weights']}: {found.model} is published in {own}; set MODEL to your {found.plan['weights']} checkpoint"


def crowded(found: Settings, setting: str, requests: int, where: str = "") -> list[str]:
    """That more requests are asked for than a step has tokens, each of which takes one at least."""
    if requests <= found.rank_chunk:
        return []
    return [f"{setting} {requests:,}: {found.engine.name} takes no more requests than tokens a step, {found.rank_chunk:,}{where}"]


def unpredicted(found: Settings) -> str:
    """Why nothing is said of what the engine will hold."""
    return "no rules are known for this model or cache format" if found.problem else "the scenario can no longer be read"


def too_long(found: Settings) -> str | None:
    """Where the longest session passes what the model states."""
    most = found.problem.model.max_context if found.problem else None
    if most is None or found.longest is None or found.longest <= most:
        return None
    return (
        f"sessions of {found.longest:,} tokens: {found.model} states {most:,}, and the engine refuses more until the checkpoint's config.json says so "
        "(rope scaling as its authors describe it)"
    )
