"""Several servers in one script: each with its GPUs and its port, those that only prefill first."""

from __future__ import annotations

import math
from collections.abc import Callable

from kvopt.capacity.deployment import RANKS_PER_HOST
from kvopt.export.settings import Settings

SERVERS = ("vllm", "sglang", "trtllm")  # exporters that are servers of the catalog
PORT = 8000
MOST_GPUS = RANKS_PER_HOST  # accelerators of one host


def servers(found: Settings, one: Callable[[str, int], str]) -> str:
    """The commands of every server, which run at once; those of other hosts as comments. `one(role, index)` is a command; index -1: it is the only one."""
    if found.replicas == 1:
        return one("", -1)
    parts = []
    for index in range(found.replicas):
        role = "" if not found.prefill_servers else "prefill" if index < found.prefill_servers else "decode"
        named, text = f"# server {index + 1} of {found.replicas}{f', {role}' if role else ''}", one(role, index)
        if host_of(found, index) > 1:
            named += f": start it on host {host_of(found, index)}"
            text = "".join(f"# {line}\n" for line in text.removesuffix(" &\n").splitlines())
        parts.append(f"{named}\n{text}")
    return "\n".join(parts) + "\nwait\n"


def host_of(found: Settings, index: int) -> int:
    """The host, from 1, of server `index`, from 0; the first of several that a larger server takes."""
    return index // _per_host(found) * math.ceil(found.gpus / MOST_GPUS) + 1


def _per_host(found: Settings) -> int:
    return max(1, MOST_GPUS // found.gpus)


def on_gpus(found: Settings, index: int, *more: str) -> str:
    """Variables before the command of server `index`: its GPUs on its host, and others. None for the only server."""
    if index < 0:
        return " ".join(entry for entry in more if entry)
    amd = found.problem is not None and found.problem.accelerator.vendor == "AMD"
    first = index % _per_host(found) * found.gpus
    gpus = ",".join(str(first + rank) for rank in range(min(found.gpus, MOST_GPUS)))
    return " ".join([f"{'HIP' if amd else 'CUDA'}_VISIBLE_DEVICES={gpus}", *(entry for entry in more if entry)])
