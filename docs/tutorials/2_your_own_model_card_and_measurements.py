# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 2. Your own model, card, traffic and measurements
#
# Everything that the catalog holds can come from a file of your own: the model's `config.json`, the accelerator, the sessions, how fast your machine is, and
# what compression costs your model. This tutorial writes each of these files and asks with them.
#
# The model, the card and all measurements below are made up. With your own in their place the steps stay the same.

# %%
import csv
import json
import tempfile
from pathlib import Path

import yaml

import kvopt
from kvopt import cli
from kvopt.inputs.accelerator import read_accelerator
from kvopt.inputs.hf_config import read_model
from kvopt.inputs.workload import read_workload

cli.keep_compiled()  # as the command does: keeps compiled programs on disk, in KVOPT_CACHE or the user's cache folder
temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)

# %% [markdown]
# ## The model
#
# A `config.json` as it lies beside any checkpoint on Hugging Face. From it follow the sizes: the KV cache of a token, the weights, the work of a prompt.
# A family that kvopt does not know is refused by its `model_type`, not guessed.

# %%
config = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
(folder / "my-model-3b").mkdir()
model = folder / "my-model-3b" / "config.json"
model.write_text(json.dumps(config))

spec = read_model(str(model))
print(f"{spec.name}: {spec.parameters.total / 1e9:.2f}e9 parameters, {spec.layers} layers")
assert 3.1e9 < spec.parameters.total < 3.3e9  # 28 layers of attention and feed-forward, and one embedding that is also the output head

# %% [markdown]
# ## The card
#
# Peaks are dense, bandwidths decimal and one way. Every number names its source. What is not known is left out: what needs it is then `null` in the answer.

# %%
card = folder / "my-card.yaml"
card.write_text("""\
name: My Card 48GB
vendor: NVIDIA
arch: Ada
form_factor: PCIe
confidence: medium
memory_gb: {value: 48, source: data sheet, tag: published}
memory_bandwidth_gbs: {value: 864, source: data sheet, tag: published}
bf16_tflops: {value: 181, source: "data sheet, dense", tag: published}
fp8_tflops: {value: 362, source: "data sheet, dense", tag: published}
host_link: PCIe 4.0 x16
host_gbs: {value: 32, source: 16 lanes of PCIe 4.0, tag: derived}
host_full_duplex: {value: true, source: PCI Express has a pair of wires per direction, tag: published}
host_memory_gb: {value: 64, source: our servers, tag: measured}
tdp_w: {value: 300, source: data sheet, tag: published}
usd_per_h: {value: 0.9, source: our contract, tag: measured}
""")

# %% [markdown]
# ## The traffic
#
# A workload is a weighted set of sessions: a prompt, then questions and answers with think time between, and the latency targets. Here seven of ten sessions
# are about a short report and three about a long one. A trace (Azure's CSV, Mooncake's JSONL, or your own) works in its place: `--workload trace.csv`.

# %%


def figure(value, source="our logs, last month", tag="measured"):
    """A number with its source, as every data file has it."""
    return {"value": value, "source": source, "tag": tag}


def session(weight, prompt):
    """One kind of session."""
    return {
        "weight": figure(weight),
        "prompt": figure(prompt),
        "turns": figure(3),
        "question": figure(80),
        "answer": figure(250),
        "think_s": figure(45),
    }


traffic = folder / "reports.yaml"
traffic.write_text(
    yaml.safe_dump(
        {
            "description": "Questions about reports.",
            "task": "longbench",
            "atoms": [session(7, 12_000), session(3, 40_000)],
            "ttft_s": figure(5, "our service level", "assumed"),
            "ttft_s_per_1k_tokens": figure(0.3, "our service level", "assumed"),
            "tpot_s": figure(0.06, "our service level", "assumed"),
        }
    )
)
sessions = read_workload(str(traffic)).pytree()
assert abs(sessions.weight.sum() - 1) < 1e-9
print(f"mean prompt {sessions.weight @ sessions.prompt:,.0f} tokens")

# %% [markdown]
# What an uncompressed plan gives with these three files. Times come from the card's class, as nobody measured this card.

# %%
question = {"model": str(model), "gpus": 1, "workload": str(traffic)}
guessed = kvopt.analyze(accelerator=str(card), **question)
print(guessed)
assert guessed.feasible
assert guessed.data["metrics"]["kv_bytes_per_token"] == 28 * 8 * (128 + 128) * 2  # layers x KV heads x (K and V width) x 2 bytes

# %% [markdown]
# ## Measurements of your machine
#
# One row a measurement: what ran, and of `prefill_s`, `ttft_s`, `tpot_ms`, `e2e_s` and `throughput_tok_s` what was measured. Model and card are the files from
# above here; names of the catalog work as well. `kvopt calibrate` moves the efficiencies of the card's class as far as the measurements say, and writes them
# into a new accelerator file. The same verb reads a vLLM start-up log and the JSON of `vllm bench serve --save-result`.
#
# In a terminal: `kvopt calibrate measured.csv --accelerator my-card.yaml --model my-model-3b/config.json --out my-card-calibrated.yaml`.

# %%
columns = ("engine", "version", "weight_dtype", "num_gpus", "tp", "prompt_len", "output_len", "batch", "prefill_s", "tpot_ms", "model", "gpu")
ran = ("vllm", "0.11.0", "bf16", 1, 1)
measured = folder / "measured.csv"
with measured.open("w", newline="") as file:
    write = csv.writer(file)
    write.writerow(columns)
    for prompt, batch, prefill_s, tpot_ms in (
        (2048, 1, None, 10.4),
        (2048, 8, None, 12.1),
        (2048, 32, None, 18.3),
        (8192, 1, 0.55, 11.5),
        (32768, 1, 3.4, 15.9),
        (32768, 4, None, 29.6),
    ):
        write.writerow((*ran, prompt, 128, batch, prefill_s, tpot_ms, model, card))

calibrated = folder / "my-card-calibrated.yaml"
assert cli.main(["calibrate", str(measured), "--out", str(calibrated)]) == 0

# %% [markdown]
# The new file is the card with an `efficiency` section; each figure names the measurements as its source. Figures that the rows say nothing of are not in it
# and stay the catalog's.

# %%
fitted = read_accelerator(str(calibrated)).efficiency
assert fitted is not None
assert fitted.mbu_kv is not None
assert "measured.csv" in fitted.mbu_kv.source
print({name: figure["value"] for name, figure in fitted.model_dump(exclude_none=True).items() if isinstance(figure, dict)})

known = kvopt.analyze(accelerator=str(calibrated), **question)
for name in ("prefill_s", "decode_s_per_token", "sessions_per_gpu_hour"):
    print(f"{name}: {guessed.data['metrics'][name]:.4g} guessed, {known.data['metrics'][name]:.4g} calibrated")
assert known.data["metrics"]["prefill_s"] != guessed.data["metrics"]["prefill_s"]

# %% [markdown]
# `kvopt validate latency measured.csv` says how far predictions lie from measurements; rows that were not fitted are the ones that tell something.

# %% [markdown]
# ## Measurements of what compression costs
#
# What a method costs your model on your task is measured, not guessed. `kvopt next` names the measurements that would tell most; here three were made.
# One row a score: the method, what it kept, the score, and the score of the uncompressed model.

# %%
scores = folder / "scores.csv"
with scores.open("w", newline="") as file:
    write = csv.writer(file)
    write.writerow(("method", "dimension", "model", "benchmark", "context_len", "kept_fraction", "score", "baseline", "query_aware", "source"))
    for kept, score in ((0.75, 49.0), (0.5, 48.6), (0.25, 47.9)):
        write.writerow(("SnapKV", "token", "my-model-3b", "LongBench", 8000, kept, score, 49.2, "no", "our own run"))

evidence = folder / "evidence.yaml"
assert cli.main(["calibrate", "--accuracy", str(scores), "--model", str(model), "--out", str(evidence)]) == 0

# %% [markdown]
# A plan is judged by them where it asks for them. The interval is the point: three scores say much more of this model than a thousand of others.

# %%
plan = {"accelerator": str(calibrated), **question, "methods": "snapkv:0.5"}
before = kvopt.analyze(**plan)
after = kvopt.analyze(**plan, accuracy_evidence=str(evidence))
for said, result in (("published evidence", before), ("with our own", after)):
    metrics = result.data["metrics"]
    print(f"{said}: keeps {metrics['accuracy_retained']:.3f}, at least {metrics['accuracy_lower']:.3f} at 90 % confidence")
assert after.data["metrics"]["accuracy_lower"] > before.data["metrics"]["accuracy_lower"]

# %% [markdown]
# ## All of it together
#
# The plan to deploy on this card, for this traffic, above the floor. In a terminal the fields go into one file for `--config`.

# %%
best = kvopt.optimize(accelerator=str(calibrated), **question, accuracy_evidence=str(evidence), accuracy_floor=0.97)
print(best)
assert best.feasible
assert best.data["metrics"]["accuracy_lower"] >= 0.97
assert best.data["metrics"]["sessions_per_gpu_hour"] >= known.data["metrics"]["sessions_per_gpu_hour"]

# %%
temporary.cleanup()
