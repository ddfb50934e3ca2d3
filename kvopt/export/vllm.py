"""vLLM: the `vllm serve` command, and the same as the YAML that `vllm serve --config` reads.

Sources of the flags: `flags.yaml`. The pool is stated in bytes and no memory fraction is: with `--kv-cache-memory-bytes` vLLM takes it on every GPU alike.
"""

from __future__ import annotations

from typing import Any

from kvopt import wording
from kvopt.export import remarks
from kvopt.export.commands import command, script, yaml_file
from kvopt.export.exported import Exported
from kvopt.export.layers import sixteen_bit_layers
from kvopt.export.remarks import quantization
from kvopt.export.servers import MOST_GPUS, PORT, on_gpus, servers
from kvopt.export.settings import GIB, Settings

SIDE_CHANNEL = 5600  # VLLM_NIXL_SIDE_CHANNEL_PORT (vllm/envs.py), one for each server of a host
ROLES = {"prefill": "kv_producer", "decode": "kv_consumer", "": "kv_both"}


def export(found: Settings) -> Exported:
    """`vllm.sh` and `vllm.yaml`; with separate prefill groups a YAML for each role."""
    cannot, notes = lost(found), remarked(found)
    about = [*remarks.heading(found), *notes, *(f"Cannot be told: {line}" for line in cannot)]
    files = {"vllm.sh": script(about, _servers(found))}
    for role in roles(found):
        name = f"vllm-{role}.yaml" if role else "vllm.yaml"
        files[name] = yaml_file([*about, f"vllm serve --config {name}"], {"model": written(found), **flags(found, role)})
    return Exported("vllm", files, tuple(notes), tuple(cannot))


def roles(found: Settings) -> tuple[str, ...]:
    """What servers do: all, or prefill and decode apart."""
    return ("prefill", "decode") if found.prefill_servers else ("",)


def model(found: Settings) -> str:
    """The checkpoint in a command."""
    return remarks.model(found, quantizes=True)


def written(found: Settings) -> str:
    """The checkpoint in a file that knows no variables."""
    weights = found.stored if quantization(found) else found.plan["weights"]
    return found.model if model(found) == found.model else f"YOUR {weights} CHECKPOINT OF {found.model}"


def flags(found: Settings, role: str = "") -> dict[str, Any]:
    """The settings of one server, by name without dashes."""
    ranks = found.attention_dp
    one: dict[str, Any] = {"tensor-parallel-size": found.tp // ranks, "pipeline-parallel-size": found.pp}
    if copies(found) > 1:
        one["data-parallel-size"] = copies(found)
    if found.plan["expert_parallel"]:
        one["enable-expert-parallel"] = True
    if found.plan["dcp"] > 1:
        one["decode-context-parallel-size"] = int(found.plan["dcp"])
    if quantization(found):
        one["quantization"] = quantization(found)
    one["kv-cache-dtype"] = found.format
    if found.told:
        skipped, _ = sixteen_bit_layers(found)
        if skipped:
            one["kv-cache-dtype-skip-layers"] = skipped
    if found.pool_bytes is not None:
        one["kv-cache-memory-bytes"] = found.pool_bytes
    if found.longest is not None:
        one["max-model-len"] = found.longest
    one |= {
        "max-num-seqs": min(found.rank_sequences, found.rank_chunk),
        "max-num-batched-tokens": found.rank_chunk,
        "enable-prefix-caching": found.reuses,
    }
    return {**one, **_transfer(found, role)}


def copies(found: Settings) -> int:
    """`--data-parallel-size` of one server: ranks of attention; or the replicas of a dense model, whose engines then share nothing but the address.

    The data-parallel engines of a mixture of experts share their experts (docs: serving/data_parallel_deployment), which is what a plan means by attention
    data parallelism and not by replicas: those are servers of their own.
    """
    return found.attention_dp if found.attention_dp > 1 else found.replicas if in_one(found) else 1


def in_one(found: Settings) -> bool:
    """Whether one command starts all replicas: those of a dense model, on one host."""
    dense = found.problem is not None and not found.experts
    return found.replicas > 1 and dense and not found.prefill_servers and found.gpus * found.replicas <= MOST_GPUS


def _transfer(found: Settings, role: str) -> dict[str, Any]:
    """Where caches go: to the host, to decode servers, or both.

    `--kv-offloading-size` sets the connector itself (vllm/config/vllm.py), so beside another connector the host tier is one of a MultiConnector.
    """
    nixl = {"kv_connector": "NixlConnector", "kv_role": ROLES[role]}
    bytes_ = tier_bytes(found)
    if not role:
        return {"kv-offloading-size": bytes_ // GIB, "kv-offloading-backend": "native"} if bytes_ >= GIB else {}
    if not bytes_ or role == "prefill":
        return {"kv-transfer-config": nixl}
    host = {"kv_connector": "OffloadingConnector", "kv_role": "kv_both", "kv_connector_extra_config": {"cpu_bytes_to_use": bytes_}}
    both = {"kv_connector": "MultiConnector", "kv_role": "kv_both", "kv_connector_extra_config": {"connectors": [nixl, host]}}
    return {"kv-transfer-config": both}


def tier_bytes(found: Settings) -> int:
    """[bytes] of host memory of one engine for parked caches; 0 where the plan parks none."""
    return found.host_bytes // found.attention_dp if found.parks else 0


def small_tier(found: Settings) -> list[str]:
    """That vLLM's own host tier is left out, which is stated in whole GiB; a connector of separate prefill groups is told bytes."""
    if not found.parks or found.prefill_servers or tier_bytes(found) >= GIB:
        return []
    size = wording.bytes_(tier_bytes(found))
    return [
        f"parking: --kv-offloading-size counts whole GiB and the host tier has {size} an engine, so nothing is parked (kvopt export lmcache has less)"
    ]


def _servers(found: Settings) -> str:
    """The commands: one, or several at once with GPUs and a port of their own."""

    def one(role: str, index: int) -> str:
        channel = f"VLLM_NIXL_SIDE_CHANNEL_PORT={SIDE_CHANNEL + index * found.gpus}" if role else ""
        own = {"port": PORT + index} if index >= 0 else {}
        return command(["vllm", "serve", model(found)], {**flags(found, role), **own}, on_gpus(found, index, channel), "&" if own else "")

    return remarks.check(model(found)) + (one("", -1) if in_one(found) else servers(found, one))


def lost(found: Settings) -> list[str]:
    """What of the plan vLLM cannot be told."""
    return [*lost_beside_parking(found), *small_tier(found)]


def lost_beside_parking(found: Settings) -> list[str]:
    """The same where something else parks caches."""
    lines = remarks.lost(found)
    lines += [] if not found.told else sixteen_bit_layers(found)[1]
    if found.attention_dp > 1 and found.problem and not found.experts:
        lines.append("attention_dp: data-parallel engines of a dense model share no weights in vLLM, so each holds all of them")
    if found.prefill_servers and found.pp > 1:
        lines.append("pp with separate prefill groups: NixlConnector takes no pipeline stages on decode servers (nixl/base_worker.py)")
    weights = remarks.checkpoint(found)
    lines += [weights] if weights and quantization(found) is None else []
    long = remarks.too_long(found)
    lines += [f"max_model_len: {long}"] if long else []
    lines += remarks.crowded(found, "max_num_seqs", found.rank_sequences, " (vllm/config/scheduler.py)")
    if found.longest is None:
        lines.append("max_model_len: the longest session is not in the saved run, so the length is left to vLLM")
    return lines


def remarked(found: Settings) -> list[str]:
    """What the settings rest on, and what vLLM will print."""
    lines = [*remarks.unnamed(found), *printed(found), *remarks.pool(found, "--kv-cache-memory-bytes states")]
    if found.pp > 1 or found.attention_dp > 1:
        each = " of each data-parallel engine" if found.attention_dp > 1 else ""
        lines.append(
            f"--max-num-seqs{each} counts all pipeline stages: the plan's {found.plan['max_num_seqs']} for each group of {found.tp} GPUs x {found.pp}"
            + (f" / {found.attention_dp}" if found.attention_dp > 1 else "")
        )
    if in_one(found):
        lines.append(
            f"the {found.replicas} replicas are data-parallel engines behind one address, each with the pool above; a session's next question must reach the "
            "engine that holds its cache (header X-data-parallel-rank)"
        )
    elif found.replicas > 1:
        lines.append(
            f"the {found.replicas} replicas are servers of their own{_why_apart(found)}; put a router before them that sends a session back to its server"
        )
    if found.prefill_servers:
        lines.append(
            "a proxy must send a session's first prompt to a prefill server (docs.vllm.ai/en/stable/features/nixl_connector_usage), and what follows straight "
            "to the decode server that holds its cache, as the plan counts it"
        )
    if found.parks and not small_tier(found):
        lines.append(
            f"the host tier holds {wording.bytes_(found.host_bytes)} a server, in all its ranks: caches parked in the mean are "
            f"{wording.bytes_(found.point['metrics']['host_memory_used_bytes'] * found.pp)}, and it keeps a copy of what runs"
        )
    if quantization(found):
        lines.append(
            f"--quantization {quantization(found)} makes the weights while loading; leave it out with a checkpoint that is {found.plan['weights']} already"
        )
    return [*lines, *remarks.consequence(found), *remarks.spread(found)]


def _why_apart(found: Settings) -> str:
    """Why one command does not start all replicas."""
    if found.prefill_servers:
        return ""
    if found.problem is None:
        return ": whether the model routes to experts, which data-parallel engines would share, is not known"
    if found.experts:
        return ": data-parallel engines of a mixture of experts would share their experts, which the plan does not count on"
    return f": one command starts the data-parallel engines of one host, and {found.gpus * found.replicas} GPUs are more"


def printed(found: Settings) -> list[str]:
    """What vLLM's log will say of the caches at start-up, with exactly these settings."""
    held = remarks.predicted(found)
    if held is None:
        return [f"what vLLM {found.engine.version} prints at start-up is not predicted: {remarks.unpredicted(found)}"]
    each = f" (each of {copies(found)} engines)" if copies(found) > 1 else ""
    length = f"{found.longest:,}"
    said = f'"GPU KV cache size: {held.tokens:,} tokens, Maximum concurrency for {length} tokens per request: {held.concurrency:.2f}x"'
    return [f"vLLM {found.engine.version} should print{each}: {said}"]
