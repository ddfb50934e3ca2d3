"""SGLang: `python -m sglang.launch_server`. The pool is capped in tokens; the share of memory is the engine's own (its base is weights and pool together)."""

from __future__ import annotations

from typing import Any

from kvopt.export import remarks
from kvopt.export.commands import command, script
from kvopt.export.exported import Exported
from kvopt.export.remarks import quantization
from kvopt.export.servers import on_gpus, servers
from kvopt.export.settings import Settings

PORT = 30000
BOOTSTRAP = 8998  # --disaggregation-bootstrap-port, one for each prefill server


def export(found: Settings) -> Exported:
    """`sglang.sh`."""
    cannot, notes = lost(found), remarked(found)
    about = [*remarks.heading(found), *notes, *(f"Cannot be told: {line}" for line in cannot)]
    return Exported("sglang", {"sglang.sh": script(about, _servers(found))}, tuple(notes), tuple(cannot))


def flags(found: Settings, role: str = "") -> dict[str, Any]:
    """The settings of one server, by name without dashes."""
    one: dict[str, Any] = {"tp-size": found.tp, "pp-size": found.pp}
    if found.attention_dp > 1:
        one["attn-dp-size"] = found.attention_dp
    if found.plan["expert_parallel"]:
        one["ep-size"] = found.tp
    if found.plan["dcp"] > 1:
        one["dcp-size"] = int(found.plan["dcp"])
    if quantization(found):
        one["quantization"] = quantization(found)
    one["kv-cache-dtype"] = found.format
    if found.longest is not None:
        one["context-length"] = found.longest
    one |= {"max-running-requests": found.sequences, "chunked-prefill-size": found.chunk}
    held = remarks.predicted(found)
    if held:
        one["max-total-tokens"] = held.tokens
    if not found.reuses:
        one["disable-radix-cache"] = True
    if found.parks and role != "decode":
        one |= {"enable-hierarchical-cache": True, "hicache-size": host_gb(found)}
    if role:
        one["disaggregation-mode"] = role
    return one


def host_gb(found: Settings) -> int:
    """[GB] of one rank: `--hicache-size` counts 1e9 bytes of each rank's own pool (mem_cache/pool_host/base.py)."""
    return max(1, int(found.host_bytes / found.gpus / 1e9))


def _servers(found: Settings) -> str:
    model = remarks.model(found, quantizes=True)
    start = ["python", "-m", "sglang.launch_server", "--model-path", model]

    def one(role: str, index: int) -> str:
        own = {"port": PORT + index} if index >= 0 else {}
        own |= {"disaggregation-bootstrap-port": BOOTSTRAP + index} if role == "prefill" else {}
        return command(start, {**flags(found, role), **own}, on_gpus(found, index), "&" if own else "")

    return remarks.check(model) + servers(found, one)


def lost(found: Settings) -> list[str]:
    """What of the plan SGLang cannot be told."""
    lines = remarks.lost(found)
    if found.prefill_servers and found.reuses:
        lines.append(
            "follow-up questions on the decode servers: SGLang's decode servers keep no radix cache by default and take every prompt from a prefill server, "
            "where caches are parked"
        )
    if found.plan.get("blocks") and found.told:
        lines.append("bits by layer: SGLang has one format for all layers")
    weights, long = remarks.checkpoint(found), remarks.too_long(found)
    lines += [weights] if weights and quantization(found) is None else []
    lines += [f"context_length: {long}"] if long else []
    return lines


def remarked(found: Settings) -> list[str]:
    """What the settings rest on."""
    held, lines = remarks.predicted(found), remarks.unnamed(found)
    if held:
        each = f" on each of {found.attention_dp} attention ranks" if found.attention_dp > 1 else ""
        lines.append(f'SGLang {found.engine.version} should print{each}: "max_total_num_tokens={held.tokens}"')
        lines += remarks.pool(found, "--max-total-tokens is what these hold:")
    else:
        lines.append(f"the pool is left to SGLang: {remarks.unpredicted(found)}")
    lines.append("--mem-fraction-static is left to SGLang: its base is weights and pool together, not the base of another engine's share")
    if found.pp > 1 or found.attention_dp > 1:
        lines.append("--max-running-requests and --chunked-prefill-size count a whole server: SGLang divides them by its stages and attention ranks")
    if found.replicas > 1 and not found.prefill_servers:
        lines.append(
            f"the {found.replicas} replicas are servers of their own, each with all weights; put a cache-aware router before them (sglang_router), so that a "
            "session comes back to its cache"
        )
    if found.prefill_servers:
        lines.append("a router must pair prefill and decode servers (docs: advanced_features/pd_disaggregation)")
    if found.parks:
        lines.append(f"--hicache-size {host_gb(found)} GB on each of {found.gpus} ranks of a server; it keeps a copy of what runs (write-through)")
    return [*lines, *remarks.consequence(found), *remarks.spread(found)]
