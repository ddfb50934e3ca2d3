"""The catalog's engines: every file valid, its formats known to the method catalog, its rules as published."""

from __future__ import annotations

import pytest

from kvopt import catalog
from kvopt.errors import BadInput
from kvopt.inputs import engine, method
from kvopt.inputs.sourced import checked


@pytest.mark.parametrize("name", catalog.ids("engines"))
def test_every_engine_is_valid_and_runs_formats_that_exist(name: str) -> None:
    spec = engine.load(name)
    assert spec.id == name
    for entry in spec.kv_formats:
        bits = method.load(entry.method)
        assert bits.dimension == "bits"
        assert any(place.engine == name for place in bits.runs_in)
    assert spec.chunk(80) in range(spec.chunking.smallest, spec.chunking.largest + 1)
    assert all(size % spec.chunking.multiple == 0 for size in spec.chunking.candidates)


@pytest.mark.parametrize("spec", method.load_all(), ids=lambda spec: spec.id)
def test_engine_ready_precisions_are_listed_by_the_engine(spec: method.MethodSpec) -> None:
    if spec.dimension == "bits" and spec.where == "engine-ready":
        for place in spec.runs_in:
            assert spec.id in [entry.method for entry in engine.load(place.engine).kv_formats]


def test_vllm_defaults_depend_on_the_accelerator() -> None:
    vllm = engine.load("vllm")
    assert (vllm.chunk(80, "h100-sxm"), vllm.sequences(80, "h100-sxm")) == (8192, 1024)
    assert (vllm.chunk(80, "a100-80-sxm"), vllm.sequences(80, "a100-80-sxm")) == (2048, 256)
    assert vllm.chunk(180, "b200") == 16384
    assert vllm.memory.share == 0.92
    assert vllm.memory.base == "total memory"


def test_nvfp4_needs_blackwell_and_fp8_does_not_run_on_ampere() -> None:
    vllm = engine.load("vllm")
    assert "nvfp4" in vllm.formats_on("Blackwell", "b200-sxm")
    assert "nvfp4" not in vllm.formats_on("Blackwell", "rtx-5090")
    assert "nvfp4" not in vllm.formats_on("Hopper", "h100-sxm")
    assert "fp8" not in vllm.formats_on("Ampere", "a100-80-sxm")


def test_decode_context_parallel_sizes() -> None:
    vllm = engine.load("vllm").parallelism
    assert vllm.decode_context_sizes(8, kv_heads=8, latent=False) == (1,)
    assert vllm.decode_context_sizes(8, kv_heads=2, latent=False) == (1, 2, 4)
    assert vllm.decode_context_sizes(8, kv_heads=1, latent=True) == (1, 2, 4, 8)
    assert engine.load("hf").parallelism.decode_context_sizes(8, kv_heads=8, latent=False) == (1,)


def test_unknown_field_is_one_line_that_names_it() -> None:
    data = catalog.read("engines", "vllm") | {"swap_space": 4}
    with pytest.raises(BadInput, match="swap_space") as error:
        checked(engine.EngineSpec, data, "engine", "my file")
    assert "\n" not in str(error.value)


def test_unknown_engine_is_refused_with_the_nearest() -> None:
    with pytest.raises(BadInput, match="vllm"):
        engine.load("vlm")
