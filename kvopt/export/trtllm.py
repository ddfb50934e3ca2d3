"""TensorRT-LLM: the YAML of `LlmArgs` and the `trtllm-serve` command. The pool is capped in bytes; its share of free memory is the engine's own."""

from __future__ import annotations

import math
from typing import Any

from kvopt.export import remarks
from kvopt.export.commands import command, script, yaml_file
from kvopt.export.exported import Exported
from kvopt.export.servers import host_of, on_gpus, servers
from kvopt.export.settings import GIB, Settings

PORT = 8000
PROXY = "trtllm-disagg.yaml"


def export(found: Settings) -> Exported:
    """`trtllm.yaml` and `trtllm.sh`; with separate prefill groups a YAML for each role and the proxy's."""
    cannot, notes = lost(found), remarked(found)
    about = [*remarks.heading(found), *notes, *(f"Cannot be told: {line}" for line in cannot)]
    roles = ("context", "generation") if found.prefill_servers else ("",)
    files = {name_of(role): yaml_file(about, arguments(found, role)) for role in roles}
    files["trtllm.sh"] = script(about, _servers(found))
    if found.prefill_servers:
        files[PROXY] = yaml_file(["The proxy before the servers."], _proxy(found))
    return Exported("trtllm", files, tuple(notes), tuple(cannot))


def name_of(role: str) -> str:
    """The YAML of a role."""
    return f"trtllm-{role}.yaml" if role else "trtllm.yaml"


def arguments(found: Settings, role: str = "") -> dict[str, Any]:
    """`LlmArgs` of one server.

    `max_batch_size` and `max_num_tokens` are of one pipeline stage and of one attention rank; `host_cache_size` of one rank
    (tensorrt_llm/_torch/pyexecutor: model_engine.py, resource_manager.py).
    """
    ranks = found.attention_dp
    one: dict[str, Any] = {"tensor_parallel_size": found.tp, "pipeline_parallel_size": found.pp}
    if found.plan["expert_parallel"]:
        one["moe_expert_parallel_size"] = found.tp
    if ranks > 1:
        one["enable_attention_dp"] = True
    one |= {"max_batch_size": min(_batch(found), found.rank_chunk), "max_num_tokens": found.rank_chunk}
    if found.longest is not None:
        one["max_seq_len"] = found.longest
    one["enable_chunked_prefill"] = True
    cache: dict[str, Any] = {"enable_block_reuse": found.reuses}
    cache["dtype"] = found.format
    if found.pool_bytes is not None:
        cache["max_gpu_total_bytes"] = found.pool_bytes
    if found.parks and role != "generation":
        cache["host_cache_size"] = found.host_bytes // found.gpus
    one["kv_cache_config"] = cache
    if role:
        one["cache_transceiver_config"] = {"backend": "UCX", "max_tokens_in_buffer": _buffer(found)}
    return one


def _batch(found: Settings) -> int:
    """Requests in flight of one stage and one attention rank."""
    return math.ceil(found.sequences / found.pp / found.attention_dp)


def _buffer(found: Settings) -> int:
    """[tokens] that are moved at once: the longest session, in whole blocks."""
    block = found.engine.block_tokens
    return math.ceil((found.longest or found.chunk) / block) * block


def _servers(found: Settings) -> str:
    model = remarks.model(found)
    start = ["trtllm-serve", model]

    def one(role: str, index: int) -> str:
        named = {"prefill": "context", "decode": "generation"}.get(role, "")
        own = {"port": PORT + 1 + index} if index >= 0 else {}
        return command(start, {"extra_llm_api_options": name_of(named), **own}, on_gpus(found, index), "&" if own else "")

    body = servers(found, one)
    if found.prefill_servers:
        body = body.removesuffix("wait\n") + f"trtllm-serve disaggregated -c {PROXY}\n"
    return remarks.check(model) + body


def _proxy(found: Settings) -> dict[str, Any]:
    hosts = [host_of(found, index) for index in range(found.replicas)]
    urls = [f"{'localhost' if host == 1 else f'HOST_{host}'}:{PORT + 1 + index}" for index, host in enumerate(hosts)]
    split = found.prefill_servers
    parts = {"context_servers": urls[:split], "generation_servers": urls[split:]}
    return {"hostname": "localhost", "port": PORT, **{name: {"num_instances": len(some), "urls": some} for name, some in parts.items()}}


def lost(found: Settings) -> list[str]:
    """What of the plan TensorRT-LLM cannot be told."""
    lines = remarks.lost(found)
    if found.plan.get("blocks") and found.told:
        lines.append("bits by layer: TensorRT-LLM has one format for all layers")
    if found.plan["dcp"] > 1:
        lines.append(
            "dcp: context_parallel_size adds ranks to a group in TensorRT-LLM (world size = tp x pp x cp); the plan splits tokens over the group's own"
        )
    if found.attention_dp not in (1, found.tp):
        lines.append(f"attention_dp: enable_attention_dp takes all {found.tp} ranks of the group, the plan {found.attention_dp}")
    weights, long = remarks.checkpoint(found), remarks.too_long(found)
    lines += [weights] if weights else []
    lines += [f"max_seq_len: {long}"] if long else []
    lines += remarks.crowded(found, "max_batch_size", _batch(found))
    return lines


def remarked(found: Settings) -> list[str]:
    """What the settings rest on."""
    held, lines = remarks.predicted(found), remarks.unnamed(found)
    if held:
        each = f" on each of {found.attention_dp} attention ranks" if found.attention_dp > 1 else ""
        lines.append(
            f"TensorRT-LLM {found.engine.version} should print{each}: "
            f'"Allocated {held.pool_bytes / GIB:.2f} GiB for max tokens in paged KV cache ({held.tokens})"'
        )
    lines += remarks.pool(found, "kv_cache_config.max_gpu_total_bytes states")
    lines.append(
        "TensorRT-LLM takes the smaller of it and its share of the memory that is free after the weights (free_gpu_memory_fraction, 0.9 by default)"
    )
    if found.replicas > 1:
        lines.append(
            f"{found.replicas} servers of their own"
            + ("" if found.prefill_servers else "; put a router before them that sends a session back to its server")
        )
    if found.parks:
        lines.append(f"host_cache_size is of each of {found.gpus} ranks of a server")
    return [*lines, *remarks.consequence(found), *remarks.spread(found)]
