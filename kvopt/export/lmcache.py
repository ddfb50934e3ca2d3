"""LMCache beside vLLM: the YAML for parked caches, and how vLLM is told of it.

`max_local_cpu_size` counts GiB of each worker (lmcache/v1/cache_engine.py: x 1024**3); of a latent cache (MLA) only the first rank stores one.
"""

from __future__ import annotations

import math
from typing import Any

from kvopt import wording
from kvopt.export import remarks, vllm
from kvopt.export.commands import command, script, yaml_file
from kvopt.export.exported import Exported
from kvopt.export.settings import GIB, Settings

VERSION = "0.5.6"
CONNECTOR = {"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"}
CHUNK = 256  # [tokens] LMCache's own
LEAST = 0.1  # [GiB] of a worker: sizes are written in tenths, and 0 would park nothing


def export(found: Settings) -> Exported:
    """`lmcache.yaml`, and the vLLM command that reads it."""
    cannot = vllm.lost_beside_parking(found)
    if not found.parks:
        cannot.append(f"parking: the plan parks nothing (idle caches: {found.plan['idle']}), so LMCache has no share in it")
    if found.prefill_servers:
        cannot.append("prefill_groups: written for vLLM alone (kvopt export vllm), where the host tier goes beside NixlConnector")
    if found.told and found.told.split()[-1].startswith("turboquant"):
        cannot.append(f"{found.told}: LMCache 0.5.6 is not known to store packed caches of this format")
    if found.parks and _mixed(found):
        cannot.append(
            "windows and states: LMCacheConnectorV1 turns vLLM's hybrid cache manager off, so layers with a window hold the whole context and models "
            "with a state do not start; kvopt export vllm parks them with vLLM's own connector"
        )
    notes = [*_notes(found), *(line for line in vllm.remarked(found) if "host tier" not in line)]
    about = [*remarks.heading(found), f"The host tier is LMCache {VERSION}.", *notes, *(f"Cannot be told: {line}" for line in cannot)]
    files = {"lmcache.yaml": yaml_file(about, settings_of(found)), "lmcache-vllm.sh": script(about, _server(found))}
    return Exported("lmcache", files, tuple(notes), tuple(cannot))


def settings_of(found: Settings) -> dict[str, Any]:
    """`LMCacheEngineConfig` of every worker."""
    return {"chunk_size": CHUNK, "local_cpu": found.parks, "max_local_cpu_size": per_worker(found), "save_decode_cache": found.parks}


def per_worker(found: Settings) -> float:
    """[GiB] of one worker: a server's host memory over the workers that store, at least `LEAST` where the plan parks."""
    if not found.parks:
        return 0.0
    workers = found.pp if _latent(found) else found.gpus // found.attention_dp
    return max(LEAST, math.floor(10 * found.host_bytes / found.attention_dp / workers / GIB) / 10)


def _latent(found: Settings) -> bool:
    kinds = found.problem.model.kinds.values() if found.problem else ()
    return any(kind.kv_heads == 1 and kind.value_width == 0 and kind.key_width > 0 for kind in kinds)


def _mixed(found: Settings) -> bool:
    """Whether some layers keep less than the whole context (vllm/config/vllm.py: connectors without SupportsHMA)."""
    kinds = list(found.problem.model.kinds.values()) if found.problem else []
    return any(kind.window or kind.state_bytes for kind in kinds)


def _server(found: Settings) -> str:
    own = {name: value for name, value in vllm.flags(found).items() if not name.startswith("kv-offloading")}
    transfer = {"kv-transfer-config": CONNECTOR} if found.parks else {}
    before = "LMCACHE_CONFIG_FILE=lmcache.yaml" if found.parks else ""
    return remarks.check(vllm.model(found)) + command(["vllm", "serve", vllm.model(found)], {**own, **transfer}, before)


def _notes(found: Settings) -> list[str]:
    if not found.parks:
        return []
    parked = found.point["metrics"]["host_memory_used_bytes"] * found.pp
    lines = [
        f"max_local_cpu_size {per_worker(found):g} GiB a worker is {wording.bytes_(found.host_bytes)} a server: "
        f"caches parked in the mean are {wording.bytes_(parked)}, and LMCache keeps a copy of what runs"
    ]
    if found.replicas > 1 and not vllm.in_one(found):
        lines.append(f"the command starts one of {found.replicas} servers: start each on GPUs and a port of its own")
    return lines
