"""SGLang, TensorRT-LLM and LMCache: units and bases of their own, several servers, and what each cannot be told."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import kvopt.export as exports
from kvopt.errors import BadInput
from kvopt.export import ENGINES, export, export_point
from kvopt.inputs import engine as engines
from kvopt.results import Result, load

Grid = dict[str, Result]


def test_sglang_in_its_own_units(grid: Grid, tools: SimpleNamespace) -> None:
    """Requests and tokens a step of the whole server, host memory of each rank in GB: 90e9 bytes of one rank are 90."""
    made = export("sglang", grid["dense fp8, parked"])
    told, plan = tools.flags(tools.commands(made.text, "python")[0]), grid["dense fp8, parked"].data["plan"]
    assert told["kv-cache-dtype"] == "fp8_e4m3"
    assert told["hicache-size"] == "90"
    assert int(told["chunked-prefill-size"]) == plan["chunk"]
    spread = tools.flags(tools.commands(export("sglang", grid["mixture, experts spread"]).text, "python")[0])
    wide = grid["mixture, experts spread"].data["plan"]
    assert (spread["tp-size"], spread["attn-dp-size"], spread["ep-size"]) == ("8", "8", "8")
    assert int(spread["max-running-requests"]) == wide["max_num_seqs"]
    assert int(spread["chunked-prefill-size"]) == wide["chunk"]


def test_sglang_caps_the_pool_in_the_tokens_that_it_will_print(grid: Grid, tools: SimpleNamespace) -> None:
    made = export("sglang", grid["dense"])
    told = tools.flags(tools.commands(made.text, "python")[0])
    assert f'max_total_num_tokens={told["max-total-tokens"]}"' in " ".join(made.notes)
    stated = int(re.search(r"these hold: ([\d,]+) bytes", " ".join(made.notes)).group(1).replace(",", ""))
    assert int(told["max-total-tokens"]) == stated // 131072


def test_sglang_without_a_cache_to_come_back_to(grid: Grid, tools: SimpleNamespace) -> None:
    assert tools.flags(tools.commands(export("sglang", grid["dense, recomputed"]).text, "python")[0])["disable-radix-cache"] is True


def test_sglang_prefill_servers(grid: Grid, tools: SimpleNamespace) -> None:
    made = export("sglang", grid["dense, prefill apart, parked"])
    told = [tools.flags(words) for words in tools.commands(made.text, "python")]
    assert [one["disaggregation-mode"] for one in told] == ["prefill", "decode", "decode", "decode"]
    assert ["hicache-size" in one for one in told] == [True, False, False, False]
    assert any(line.startswith("follow-up questions") for line in made.cannot)


def test_engines_without_precision_by_layer_say_so(grid: Grid) -> None:
    for engine in ("sglang", "trtllm"):
        assert any(line.startswith("bits by layer") for line in export(engine, grid["bits by layer"]).cannot)


def test_formats_of_another_engine_name_who_has_them(grid: Grid) -> None:
    line = export("sglang", grid["turboquant"]).cannot[0]
    assert line.startswith("turboquant-4bit-nc")
    assert line.endswith("kvopt export vllm")


def test_trtllm_in_its_own_units(grid: Grid, tools: SimpleNamespace) -> None:
    """Requests of one stage and rank; bytes of one rank for the pool and for the host."""
    made = export("trtllm", tools.changed(grid["dense fp8, parked"], tp=2, pp=2))
    told, plan = yaml.safe_load(made.text), grid["dense fp8, parked"].data["plan"]
    assert (told["tensor_parallel_size"], told["pipeline_parallel_size"]) == (2, 2)
    assert told["max_batch_size"] == plan["max_num_seqs"]
    assert told["enable_chunked_prefill"] is True
    cache = told["kv_cache_config"]
    assert cache["dtype"] == "fp8"
    assert cache["host_cache_size"] == int(90e9) * 2 // 4
    assert f"{cache['max_gpu_total_bytes']:,} bytes a GPU" in " ".join(made.notes)
    assert tools.flags(tools.commands(made.files["trtllm.sh"], "trtllm-serve")[0]) == {"extra_llm_api_options": "trtllm.yaml"}


def test_trtllm_prefill_servers_and_their_proxy(grid: Grid, tools: SimpleNamespace) -> None:
    made = export("trtllm", grid["dense, prefill apart, parked"])
    found = tools.commands(made.files["trtllm.sh"], "trtllm-serve")
    assert [tools.flags(words).get("extra_llm_api_options") for words in found[:4]] == ["trtllm-context.yaml", *["trtllm-generation.yaml"] * 3]
    proxy = yaml.safe_load(made.files["trtllm-disagg.yaml"])
    ports = [tools.flags(words)["port"] for words in found[:4]]
    assert [url.split(":")[1] for url in proxy["context_servers"]["urls"] + proxy["generation_servers"]["urls"]] == ports


def test_trtllm_has_no_token_split_inside_a_group(grid: Grid) -> None:
    assert any(line.startswith("dcp") for line in export("trtllm", grid["latent"]).cannot)


def test_lmcache_holds_the_host_memory_once(grid: Grid, tools: SimpleNamespace) -> None:
    """90e9 bytes are 83.8 GiB of one worker; vLLM is told of the connector and not of a host tier of its own."""
    made = export("lmcache", grid["dense fp8, parked"])
    told = yaml.safe_load(made.text)
    assert told["max_local_cpu_size"] == pytest.approx(90e9 / 2**30, abs=0.1)
    assert told["save_decode_cache"] is True
    command = tools.flags(tools.commands(made.files["lmcache-vllm.sh"], "vllm")[0])
    assert "LMCacheConnectorV1" in command["kv-transfer-config"]
    assert "kv-offloading-size" not in command
    assert any(line.startswith("windows") for line in export("lmcache", grid["windows"]).cannot)
    assert any(line.startswith("parking") for line in export("lmcache", grid["dense, recomputed"]).cannot)


def test_a_plan_for_another_engine_says_so(grid: Grid) -> None:
    assert "The plan was made for vllm" in export("trtllm", grid["dense"]).text
    assert "The plan was made for" not in export("vllm", grid["dense"]).text


@pytest.mark.parametrize(("engine", "near"), [("vlm", "vllm"), ("sg-lang", "sglang"), ("kv-press", "kvpress")])
def test_an_unknown_engine_names_the_nearest(grid: Grid, engine: str, near: str) -> None:
    with pytest.raises(BadInput, match=near):
        export(engine, grid["dense"])
    with pytest.raises(BadInput, match=near):
        export_point(engine, grid["dense"].data["scenario"], grid["dense"].data)


def test_what_holds_no_plan_is_refused_in_one_line(grid: Grid, tools: SimpleNamespace) -> None:
    scenario = grid["dense"].data["scenario"]
    infeasible = Result("optimize", {"scenario": scenario, "plan": None, "infeasible": {"constraint": "hbm"}}, feasible=False)
    front = tools.pareto(grid["dense"], grid["dense fp8, parked"])
    cases = [(infeasible, None), (Result("simulate", grid["dense"].data), None), (front, 2), (front, -1), (grid["dense"], 0)]
    for engine in ENGINES:
        for result, point in cases:
            with pytest.raises(BadInput) as caught:
                export(engine, result, point)
            assert "\n" not in str(caught.value)


def test_a_plan_of_an_older_version_is_refused(grid: Grid) -> None:
    data = {**grid["dense"].data, "plan": {name: value for name, value in grid["dense"].data["plan"].items() if name != "prefill_groups"}}
    with pytest.raises(BadInput, match="prefill_groups"):
        export("vllm", Result("analyze", data))


def test_a_point_of_a_front_is_that_point(grid: Grid, tools: SimpleNamespace) -> None:
    front = tools.pareto(grid["dense"], grid["dense fp8, parked"])
    assert "--kv-cache-dtype auto" in export("vllm", front).text
    assert "--kv-cache-dtype fp8" in export("vllm", front, 1).text


def test_an_export_is_a_function_of_the_saved_run(grid: Grid, tmp_path: Path) -> None:
    result = grid["dense"]
    result.save(tmp_path)
    for engine in ENGINES:
        assert export(engine, load(tmp_path)) == export(engine, result)


def test_the_table_of_flags_is_of_the_versions_that_the_catalog_knows() -> None:
    table = yaml.safe_load((Path(exports.__file__).parent / "flags.yaml").read_text(encoding="utf-8"))
    for name in ("vllm", "sglang", "trtllm"):
        assert table[name]["version"] == engines.load(name).version
    for name, flag in (("vllm", "kv-cache-dtype"), ("sglang", "kv-cache-dtype"), ("trtllm", "kv_cache_config.dtype")):
        for entry in engines.load(name).kv_formats:
            assert entry.setting.split()[-1].strip("{}") in table[name]["flags"][flag]["values"], entry.method
