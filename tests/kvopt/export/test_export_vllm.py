"""The vLLM exporter: every setting follows from the plan, and the log line that it promises is what the capacity rules say."""

from __future__ import annotations

import json
import math
import re
from types import SimpleNamespace

import pytest
import yaml

from kvopt.capacity import deployed
from kvopt.export import export, launch_files
from kvopt.inputs.accelerator import read_accelerator
from kvopt.inputs.hf_config import read_model
from kvopt.results import Result

Grid = dict[str, Result]


def served(tools: SimpleNamespace, result: Result) -> dict:
    made = export("vllm", result)
    return tools.flags(tools.commands(made.files["vllm.sh"], "vllm")[0])


def test_the_default_scenario(grid: Grid, tools: SimpleNamespace) -> None:
    result = grid["default"]
    plan, told = result.data["plan"], served(tools, result)
    assert int(told["max-num-seqs"]) == plan["max_num_seqs"] * plan["pp"]
    assert int(told["max-model-len"]) == result.data["engine_capacity"]["max_model_len"]
    assert int(told["max-num-batched-tokens"]) == plan["chunk"]
    assert told["kv-cache-dtype"] == "auto"
    limit = next(row["limit"] for row in result.data["constraints"] if row["name"] == "hbm") / plan["tp"]
    assert int(told["kv-cache-memory-bytes"]) == int(min(limit, result.data["engine_capacity"]["pool_bytes_lower"]))


@pytest.mark.parametrize("name", ["default", "dense fp8, parked", "dense, stages", "mixture, experts spread", "latent", "dense, recomputed"])
def test_the_promised_log_line_is_what_the_capacity_rules_say(grid: Grid, tools: SimpleNamespace, name: str) -> None:
    """Tokens = blocks x block size of the pool that the command states, with the bytes of a block from the model alone."""
    result = grid[name]
    told, scenario, plan = served(tools, result), result.data["scenario"], result.data["plan"]
    line = next(note for note in export("vllm", result).notes if "GPU KV cache size" in note)
    tokens, length, concurrency = (
        text.replace(",", "") for text in re.findall(r"size: ([\d,]+) tokens.*for ([\d,]+) tokens per request: ([\d.]+)x", line)[0]
    )
    ranks = int(told.get("data-parallel-size", 1)) if plan["attention_dp"] > 1 else 1
    rules = deployed(
        read_model(scenario["model"]),
        read_accelerator(scenario["accelerator"]),
        engine="vllm",
        version="0.33.0",
        tp=int(told["tensor-parallel-size"]),
        pp=int(told["pipeline-parallel-size"]),
        dp=ranks,
        dcp=int(told.get("decode-context-parallel-size", 1)),
        max_sequences=int(told["max-num-seqs"]),
        chunk=int(told["max-num-batched-tokens"]),
        max_model_len=int(told["max-model-len"]),
        kv_format=told["kv-cache-dtype"],
        weights=plan["weights"],
    )
    blocks = math.floor(int(told["kv-cache-memory-bytes"]) / rules.layout.block_bytes)
    assert int(tokens) == rules.layout.tokens(blocks)
    assert int(length) == int(told["max-model-len"])
    assert float(concurrency) == pytest.approx(blocks / rules.layout.request_blocks(int(length)), abs=0.006)


def test_the_tokens_of_a_dense_model_by_hand(grid: Grid, tools: SimpleNamespace) -> None:
    """Llama-3.1-8B: 32 layers x 8 heads x 128 x K and V x 2 bytes = 131,072 bytes a token, in blocks of 16."""
    line = next(note for note in export("vllm", grid["dense"]).notes if "GPU KV cache size" in note)
    pool = int(served(tools, grid["dense"])["kv-cache-memory-bytes"])
    assert f"{pool // (131072 * 16) * 16:,} tokens" in line


def test_the_yaml_says_what_the_command_says(grid: Grid, tools: SimpleNamespace) -> None:
    for name, result in grid.items():
        made = export("vllm", result)
        roles = {"vllm-prefill.yaml": 0, "vllm-decode.yaml": -1} if "vllm-prefill.yaml" in made.files else {"vllm.yaml": 0}
        found = tools.commands(made.files["vllm.sh"], "vllm")
        for file, index in roles.items():
            told = yaml.safe_load(made.files[file])
            assert told.pop("model") == found[index][2].replace("$MODEL", "YOUR int4 CHECKPOINT OF meta-llama/Meta-Llama-3.1-8B"), name
            words = {key: value for key, value in tools.flags(found[index]).items() if key != "port"}
            for key, value in told.items():
                if isinstance(value, bool):
                    assert words[key if value else f"no-{key}"] is True
                elif isinstance(value, dict):
                    assert json.loads(words[key]) == value
                else:
                    assert words[key] == ([str(entry) for entry in value] if isinstance(value, list) else str(value)), (name, key)
            assert len(words) == len(told)


def test_replicas_of_a_mixture_share_no_experts(grid: Grid, tools: SimpleNamespace) -> None:
    """--data-parallel-size would spread the experts over them, and the plan counts every replica's own."""
    made = export("vllm", grid["mixture, two replicas"])
    found = tools.commands(made.files["vllm.sh"], "vllm")
    assert len(found) == 2
    assert all("data-parallel-size" not in tools.flags(words) for words in found)
    assert re.findall(r"CUDA_VISIBLE_DEVICES=([\d,]+)", made.files["vllm.sh"]) == ["0,1,2,3", "4,5,6,7"]
    assert len({tools.flags(words)["port"] for words in found}) == 2


def test_attention_data_parallelism_divides_what_is_per_rank(grid: Grid, tools: SimpleNamespace) -> None:
    plan, told = grid["mixture, experts spread"].data["plan"], served(tools, grid["mixture, experts spread"])
    assert (told["tensor-parallel-size"], told["data-parallel-size"], told["enable-expert-parallel"]) == ("1", "8", True)
    assert int(told["max-num-seqs"]) == math.ceil(plan["max_num_seqs"] / 8)
    assert int(told["max-num-batched-tokens"]) == plan["chunk"] / 8


def test_prefill_groups_are_servers_with_nixl(grid: Grid, tools: SimpleNamespace) -> None:
    made = export("vllm", grid["dense, prefill apart, parked"])
    told = [json.loads(tools.flags(words)["kv-transfer-config"]) for words in tools.commands(made.files["vllm.sh"], "vllm")]
    assert [one["kv_connector"] for one in told] == ["NixlConnector", "MultiConnector", "MultiConnector", "MultiConnector"]
    assert told[0]["kv_role"] == "kv_producer"
    assert len(set(re.findall(r"SIDE_CHANNEL_PORT=(\d+)", made.files["vllm.sh"]))) == 4
    assert all("kv-offloading-size" not in tools.flags(words) for words in tools.commands(made.files["vllm.sh"], "vllm"))


def test_parking_is_bytes_of_a_server_in_gib(grid: Grid, tools: SimpleNamespace) -> None:
    """40 GB parked and 50 GB running: 90e9 bytes are 83 GiB."""
    told = served(tools, grid["dense fp8, parked"])
    assert (told["kv-offloading-size"], told["kv-offloading-backend"]) == ("83", "native")
    assert "swap-space" not in export("vllm", grid["dense fp8, parked"]).text


def test_layers_that_stay_in_16_bit_are_named(grid: Grid, tools: SimpleNamespace) -> None:
    made = export("vllm", grid["bits by layer"])
    assert served(tools, grid["bits by layer"])["kv-cache-dtype-skip-layers"] == ["0", "1", "30", "31"]
    assert made.cannot == ()


def test_a_layer_between_16_bit_and_the_format_cannot_be_told(grid: Grid, tools: SimpleNamespace) -> None:
    blocks = {"per": "layer", "key_bits": [[4.0]] + [[8.0]] * 31, "value_bits": [[8.0]] * 32}
    made = export("vllm", tools.changed(grid["bits by layer"], blocks=blocks))
    assert any(line.startswith("bits by layer") for line in made.cannot)


def test_caches_that_nobody_returns_to_are_not_kept(grid: Grid, tools: SimpleNamespace) -> None:
    assert served(tools, grid["dense, recomputed"])["no-enable-prefix-caching"] is True
    assert "kv-offloading-size" not in served(tools, grid["dense, recomputed"])


def test_no_more_requests_than_tokens_a_step(grid: Grid, tools: SimpleNamespace) -> None:
    assert served(tools, grid["few tokens a step"])["max-num-seqs"] == "256"
    assert any(line.startswith("max_num_seqs 700") for line in export("vllm", grid["few tokens a step"]).cannot)


def test_a_research_plan_loses_its_methods_and_says_so(grid: Grid) -> None:
    made = export("vllm", grid["research"])
    assert [line.split()[0] for line in made.cannot] == ["duoattention", "snapkv", "kivi"]
    assert "kvopt export duoattention or kvopt export kvpress" in made.cannot[0]
    for line in made.cannot:
        assert f"Cannot be told: {line}"[:60] in made.text


def test_weights_are_made_while_loading_or_asked_for(grid: Grid, tools: SimpleNamespace) -> None:
    assert served(tools, grid["dense, fp8 weights"])["quantization"] == "fp8"
    made = export("vllm", grid["dense, other weights"])
    assert "$MODEL" in made.text
    assert any(line.startswith("weights in int4") for line in made.cannot)


def test_amd_cards_are_named_by_hip(grid: Grid, tools: SimpleNamespace) -> None:
    amd = tools.changed(grid["mixture, two replicas"], {"accelerator": "mi300x"})
    assert "HIP_VISIBLE_DEVICES=0" in export("vllm", amd).text


def test_the_sweep_pairs_every_plan_with_its_load(grid: Grid, tools: SimpleNamespace) -> None:
    front = tools.pareto(grid["dense"], grid["dense fp8, parked"], grid["dense, prefill apart, parked"], grid["bits by layer"])
    made = export("vllm-bench", front)
    serve, bench = (json.loads(made.files[name]) for name in ("vllm-bench-serve.json", "vllm-bench-load.json"))
    assert list(serve) == list(bench)
    assert len(serve) == 2
    assert sum("left out of the sweep" in line for line in made.cannot) == 2
    for name, told in serve.items():
        assert told["served_model_name"] == bench[name]["served_model_name"] == name
        assert bench[name]["max_concurrency"] == told["max_num_seqs"]
    command = tools.flags(tools.commands(made.text, "vllm")[0])
    assert (command["serve-params"], command["bench-params"]) == ("vllm-bench-serve.json", "vllm-bench-load.json")
    assert json.loads(export("vllm-bench", front, 1).files["vllm-bench-serve.json"]).keys() == {"plan-1"}


def test_a_run_folder_gets_the_files_of_its_plan(grid: Grid, tools: SimpleNamespace) -> None:
    assert set(launch_files(grid["dense, recomputed"])) == {"vllm.sh", "vllm.yaml", "vllm-bench.sh", "vllm-bench-serve.json", "vllm-bench-load.json"}
    assert {"lmcache.yaml", "lmcache-vllm.sh"} <= set(launch_files(grid["dense fp8, parked"]))
    presses = tools.changed(grid["dense"], methods=["snapkv", "kivi"], token_keep=0.25, key_bits=4.0, value_bits=4.0, where="research library")
    assert "research-kvpress_plan.py" in launch_files(presses)
    assert launch_files(Result("simulate", grid["dense"].data)) == {}
    assert launch_files(Result("optimize", {"scenario": grid["dense"].data["scenario"], "plan": None, "infeasible": {"constraint": "hbm"}})) == {}
