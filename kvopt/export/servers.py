"""Several servers in one script: each with its GPUs and its port, those that only prefill first."""

from __future__ import annotations

from collections.abc import Callable

from kvopt.export.settings import Settings

PORT = 8000
MOST_GPUS = 8  # accelerators of one host (the usual server)


def servers(found: Settings, one: Callable[[str, int], str]) -> str:
    """The commands of every server, which run at once. `one(role, index)` is a server's command; index -1 means that it is the only one."""
    if found.replicas == 1:
        return one("", -1)
    parts = []
    for index in range(found.replicas):
        role = "" if not found.prefill_servers else "prefill" if index < found.prefill_servers else "decode"
        parts.append(f"# server {index + 1} of {found.replicas}{f', {role}' if role else ''}\n{one(role, index)}")
    return "\n".join(parts) + "\nwait\n"


def on_gpus(found: Settings, index: int, *more: str) -> str:
    """Variables before the command of server `index`: its GPUs on its host, and others. None for the only server."""
    if index < 0:
        return " ".join(entry for entry in more if entry)
    amd = found.problem is not None and found.problem.accelerator.vendor == "AMD"
    first = index % max(1, MOST_GPUS // found.gpus) * found.gpus
    gpus = ",".join(str(first + rank) for rank in range(min(found.gpus, MOST_GPUS)))
    return " ".join([f"{'HIP' if amd else 'CUDA'}_VISIBLE_DEVICES={gpus}", *(entry for entry in more if entry)])
