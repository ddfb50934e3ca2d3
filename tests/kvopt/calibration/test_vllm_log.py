"""Start-up logs of vLLM as their versions print them, shortened from public ones."""

from __future__ import annotations

import pytest

from kvopt.calibration.vllm_log import GIB, is_log, parse
from kvopt.errors import BadInput

V05 = """\
INFO 07-30 10:01:02 llm_engine.py:176] Initializing an LLM engine (v0.5.3) with config: model='meta-llama/Meta-Llama-3-8B-Instruct', \
speculative_config=None, dtype=torch.bfloat16, max_seq_len=8192, tensor_parallel_size=1, pipeline_parallel_size=1, quantization=None, \
enforce_eager=False, kv_cache_dtype=auto, seed=0)
INFO 07-30 10:01:20 model_runner.py:692] Loading model weights took 14.9595 GB
INFO 07-30 10:01:22 gpu_executor.py:102] # GPU blocks: 27892, # CPU blocks: 2048
INFO 07-30 10:01:40 model_runner.py:1183] Graph capturing finished in 14 secs.
"""
V065 = """\
INFO 12-13 19:54:18 worker.py:243] Memory profiling results:
INFO 12-13 19:54:18 worker.py:243] total_gpu_memory\t79.22GiB
INFO 12-13 19:54:18 worker.py:243] gpu_memory_utilization\t0.90
INFO 12-13 19:54:18 worker.py:243] the current vLLM instance can use\t71.29GiB
INFO 12-13 19:54:18 worker.py:243] model weights take\t14.96GiB
INFO 12-13 19:54:18 worker.py:243] non_torch_memory\t1.79GiB
INFO 12-13 19:54:18 worker.py:243] PyTorch activation peak memory\t1.26GiB
INFO 12-13 19:54:18 worker.py:243] available_kv_cache_memory\t53.29GiB
"""
V073 = """\
INFO 05-30 16:22:20 llm_engine.py:234] Initializing a V0 LLM engine (v0.7.3) with config: model='Qwen/Qwen2.5-1.5B-Instruct', dtype=torch.float16, \
max_seq_len=32768, tensor_parallel_size=1, pipeline_parallel_size=1, quantization=None, enforce_eager=False, kv_cache_dtype=auto
INFO 05-30 16:23:22 model_runner.py:1115] Loading model weights took 2.8875 GB
INFO 05-30 16:23:28 worker.py:267] Memory profiling takes 5.07 seconds
INFO 05-30 16:23:28 worker.py:267] the current vLLM instance can use total_gpu_memory (14.56GiB) x gpu_memory_utilization (0.50) = 7.28GiB
INFO 05-30 16:23:28 worker.py:267] model weights take 2.89GiB; non_torch_memory takes 0.01GiB; PyTorch activation peak memory takes 2.02GiB; the rest \
of the memory reserved for KV Cache is 2.36GiB.
INFO 05-30 16:23:28 executor_base.py:110] # CUDA blocks: 5519, # CPU blocks: 9362
INFO 05-30 16:23:28 executor_base.py:115] Maximum concurrency for 32768 tokens per request: 2.69x
INFO 05-30 16:24:18 model_runner.py:1562] Graph capturing finished in 43 secs, took 0.17 GiB
"""
V010 = """\
(APIServer pid=291) INFO 09-21 23:16:04 [api_server.py:1882] vLLM API server version 0.10.2
(APIServer pid=291) INFO 09-21 23:16:04 [utils.py:328] non-default args: {'model_tag': 'TinyLlama/TinyLlama-1.1B-Chat-v1.0', 'host': '0.0.0.0', \
'model': 'TinyLlama/TinyLlama-1.1B-Chat-v1.0', 'enforce_eager': True, 'gpu_memory_utilization': 0.85}
(APIServer pid=291) INFO 09-21 23:16:13 [scheduler.py:222] Chunked prefill is enabled with max_num_batched_tokens=2048.
(EngineCore_0 pid=357) INFO 09-21 23:16:23 [gpu_model_runner.py:1975] Model loading took 2.0513 GiB and 1.521577 seconds
(EngineCore_0 pid=357) DEBUG 09-21 23:16:24 [gpu_worker.py:284] Initial free memory: 118.00 GiB; Requested memory: 0.85 (util), 104.37 GiB
(EngineCore_0 pid=357) DEBUG 09-21 23:16:24 [gpu_worker.py:297] Memory profiling takes 0.40 seconds. Total non KV cache memory: 2.90GiB; torch peak \
memory increase: 0.66GiB; non-torch forward increase memory: 0.19GiB; weights memory: 2.05GiB.
(EngineCore_0 pid=357) INFO 09-21 23:16:24 [gpu_worker.py:276] Available KV cache memory: 101.47 GiB
(EngineCore_0 pid=357) INFO 09-21 23:16:24 [kv_cache_utils.py:850] GPU KV cache size: 4,836,272 tokens
(EngineCore_0 pid=357) INFO 09-21 23:16:24 [kv_cache_utils.py:854] Maximum concurrency for 2,048 tokens per request: 2361.46x
"""
V019 = """\
(EngineCore pid=14) INFO 04-07 02:43:51 [core.py:105] Initializing a V1 LLM engine (v0.19.0) with config: model='RedHatAI/Llama-3.3-70B-Instruct-fp8', \
dtype=torch.bfloat16, max_seq_len=8192, tensor_parallel_size=2, pipeline_parallel_size=1, quantization=compressed-tensors, enforce_eager=False, \
kv_cache_dtype=auto, device_config=cuda
(Worker_TP0 pid=20) INFO 04-07 02:44:26 [gpu_model_runner.py:4820] Model loading took 33.88 GiB memory and 26.884630 seconds
(Worker_TP1 pid=21) INFO 04-07 02:44:26 [gpu_model_runner.py:4820] Model loading took 33.80 GiB memory and 26.884630 seconds
(Worker_TP0 pid=20) INFO 04-07 02:46:21 [gpu_model_runner.py:5955] Estimated CUDA graph memory: 1.82 GiB total
(Worker_TP0 pid=20) INFO 04-07 02:46:21 [gpu_worker.py:436] Available KV cache memory: 37.30 GiB
(Worker_TP1 pid=21) INFO 04-07 02:46:21 [gpu_worker.py:436] Available KV cache memory: 37.28 GiB
(Worker_TP0 pid=20) INFO 04-07 02:46:21 [gpu_worker.py:470] In v0.19, CUDA graph memory profiling will be enabled by default; increase \
--gpu-memory-utilization from 0.9500 to 0.9732 to maintain the same effective KV cache size.
(EngineCore pid=14) INFO 04-07 02:46:21 [kv_cache_utils.py:1319] GPU KV cache size: 244,304 tokens
(EngineCore pid=14) INFO 04-07 02:46:21 [kv_cache_utils.py:1324] Maximum concurrency for 8,192 tokens per request: 29.82x
(Worker_TP0 pid=20) INFO 04-07 02:46:27 [gpu_model_runner.py:6046] Graph capturing finished in 5 secs, took 1.79 GiB
"""
V022 = """\
INFO 09-03 03:38:43 [scheduler.py:239] Chunked prefill is enabled with max_num_batched_tokens=2048.
(EngineCore pid=1073) INFO 09-03 03:38:47 [core.py:112] Initializing a V1 LLM engine (v0.22.0) with config: model='/model/Qwen2.5-7B-Instruct', \
dtype=torch.bfloat16, max_seq_len=4096, tensor_parallel_size=1, pipeline_parallel_size=1, quantization=None, enforce_eager=False, kv_cache_dtype=auto
(EngineCore pid=1073) INFO 09-03 03:38:57 [gpu_model_runner.py:5132] Model loading took 14.29 GiB memory and 4.660599 seconds
(EngineCore pid=1073) INFO 09-03 03:39:28 [gpu_model_runner.py:6365] Estimated CUDA graph memory: 0.37 GiB total
(EngineCore pid=1073) INFO 09-03 03:39:29 [gpu_worker.py:466] Available KV cache memory: 26.32 GiB
(EngineCore pid=1073) INFO 09-03 03:39:29 [gpu_worker.py:481] CUDA graph memory profiling is enabled (default since v0.21.0). The current \
--gpu-memory-utilization=0.9500 is equivalent to --gpu-memory-utilization=0.9417 without CUDA graph memory profiling.
(EngineCore pid=1073) INFO 09-03 03:39:29 [kv_cache_utils.py:1733] GPU KV cache size: 492,912 tokens
(EngineCore pid=1073) INFO 09-03 03:39:29 [kv_cache_utils.py:1734] Maximum concurrency for 4,096 tokens per request: 120.34x
(EngineCore pid=1073) INFO 09-03 03:39:33 [gpu_model_runner.py:6456] Graph capturing finished in 4 secs, took 0.31 GiB
"""
V029 = """\
INFO [kv_cache_utils.py:2393] GPU KV cache size: 651,081 tokens, Maximum concurrency for 262,144 tokens per request: 2.48x
INFO [gpu_worker.py:935] Free memory on device (15.28/15.51 GiB) on startup. Desired GPU memory utilization is (0.92, 14.27 GiB). Actual usage is \
10.47 GiB for consumed memory (weights + non-torch), 0.79 GiB for peak activation, and 0.04 GiB for CUDAGraph memory. Replace \
gpu_memory_utilization config with `--kv-cache-memory=3031561913` (2.82 GiB) to fit into requested memory. Current kv cache memory in use is 3.01 GiB.
"""


def test_v0_of_2024_prints_blocks_alone() -> None:
    log = parse(V05, "server.log")
    assert (log.version, log.model, log.tp, log.pp) == ("0.5.3", "meta-llama/Meta-Llama-3-8B-Instruct", 1, 1)
    assert (log.gpu_blocks, log.cpu_blocks, log.weights_gib, log.max_model_len) == (27892, 2048, 14.9595, 8192)
    assert (log.kv_gib, log.kv_tokens, log.graphs_gib, log.total_bytes, log.utilisation) == (None,) * 5
    assert log.eager is False
    assert log.quantization == "None"


def test_the_table_of_065() -> None:
    log = parse(V065, "server.log")
    assert (log.total_gib, log.utilisation, log.requested_gib, log.weights_gib) == (79.22, 0.9, 71.29, 14.96)
    assert (log.non_torch_gib, log.activation_gib, log.kv_gib) == (1.79, 1.26, 53.29)


def test_the_sentence_of_v0() -> None:
    log = parse(V073, "server.log")
    assert (log.total_gib, log.utilisation, log.requested_gib) == (14.56, 0.5, 7.28)
    assert (log.weights_gib, log.non_torch_gib, log.activation_gib, log.graphs_gib, log.kv_gib) == (2.8875, 0.01, 2.02, 0.17, 2.36)
    assert (log.gpu_blocks, log.cpu_blocks, log.concurrency, log.max_model_len) == (5519, 9362, 2.69, 32768)


def test_v1_with_debug_lines_implies_the_memory() -> None:
    log = parse(V010, "server.log")
    assert (log.version, log.model, log.eager, log.utilisation) == ("0.10.2", "TinyLlama/TinyLlama-1.1B-Chat-v1.0", True, 0.85)
    assert (log.kv_gib, log.kv_tokens, log.concurrency, log.max_num_batched_tokens) == (101.47, 4836272, 2361.46, 2048)
    assert (log.activation_gib, log.non_torch_gib) == (0.66, 0.19)
    assert log.total_gib is None
    assert log.total_bytes == pytest.approx(104.37 / 0.85 * GIB)
    assert log.engine_args is not None
    assert log.engine_args.startswith("non-default args")


def test_the_fullest_rank_counts() -> None:
    log = parse(V019, "server.log")
    assert (log.tp, log.weights_gib, log.kv_gib, log.graphs_gib, log.graphs_estimated_gib) == (2, 33.88, 37.28, 1.79, 1.82)
    assert (log.quantization, log.kv_tokens, log.concurrency) == ("compressed-tensors", 244304, 29.82)
    assert log.total_bytes is None


def test_graphs_inside_the_budget() -> None:
    log = parse(V022, "server.log")
    assert (log.version, log.utilisation, log.kv_gib, log.kv_tokens, log.graphs_gib) == ("0.22.0", 0.95, 26.32, 492912, 0.31)


def test_the_summary_of_newer_versions() -> None:
    log = parse(V029, "server.log")
    assert (log.total_gib, log.utilisation, log.requested_gib, log.kv_gib) == (15.51, 0.92, 14.27, 3.01)
    assert (log.activation_gib, log.graphs_gib, log.kv_tokens, log.max_model_len, log.concurrency) == (0.79, 0.04, 651081, 262144, 2.48)
    assert log.weights_gib is None  # weights and non-torch memory are printed as one


def test_a_pool_below_zero_is_read() -> None:
    assert parse("INFO [gpu_worker.py:436] Available KV cache memory: -0.12 GiB", "x").kv_gib == -0.12


def test_a_log_without_a_pool_says_what_is_missing() -> None:
    with pytest.raises(
        BadInput, match=r"log: server\.log: no line says how large the pool is; missing: Available KV cache memory, GPU KV cache size, # GPU"
    ):
        parse("INFO [gpu_model_runner.py:5132] Model loading took 14.29 GiB memory and 4.66 seconds\n", "server.log")


@pytest.mark.parametrize("text", [V05, V065, V073, V010, V019, V022, V029])
def test_logs_are_known_by_their_content(text: str) -> None:
    assert is_log(text)
