"""What a person must know beside the settings: what they are for, what they rest on, and what of the plan they leave out."""

from __future__ import annotations

from kvopt import wording
from kvopt.capacity.deployed import Held
from kvopt.capacity.stated import stated
from kvopt.export import presses
from kvopt.export.servers import MOST_GPUS
from kvopt.export.settings import Settings
from kvopt.inputs import engine as engines
from kvopt.inputs.choice import FIELDS_OF
from kvopt.inputs.method import MethodSpec

SERVERS = ("vllm", "sglang", "trtllm")  # exporters that are servers of the catalog


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
    """One line for each method of the plan that the engine has no setting for, and what writes or runs it."""
    return [unsaid(found, method, found.engine.name) for method in found.used if not (method.dimension == "bits" and found.told)]


def consequence(found: Settings) -> list[str]:
    """What it means that methods are left out; nothing where none is."""
    if not lost(found):
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


def checkpoint(found: Settings) -> str | None:
    """What must be done about the weights where the model's own checkpoint is in another format; none where it is the plan's."""
    own = found.problem.model.weight_format if found.problem else found.plan["weights"]
    if found.plan["weights"] == own:
        return None
    return f"weights in {found.plan['weights']}: {found.model} is published in {own}; set MODEL to your {found.plan['weights']} checkpoint"


def too_long(found: Settings) -> str | None:
    """Where the longest session passes what the model states."""
    most = found.problem.model.max_context if found.problem else None
    if most is None or found.longest is None or found.longest <= most:
        return None
    return (
        f"sessions of {found.longest:,} tokens: {found.model} states {most:,}, and the engine refuses more until the checkpoint's config.json says so "
        "(rope scaling as its authors describe it)"
    )
