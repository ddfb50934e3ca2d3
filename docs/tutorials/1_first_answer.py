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
# # 1. A first answer
#
# One model, one kind of accelerator, one kind of traffic: which KV-cache compression, precision and scheduling settings serve the most users? This tutorial
# asks that for Llama-3.1-8B on one H100, with documents of 32,000 tokens and three questions about each, reads the answer, draws the front, and takes away the
# command that starts the engine.
#
# What is left out has a default: answers of 250 tokens, 60 seconds of thinking between questions, latency targets by the length of the prompt, an accuracy
# of at least 95 % of the uncompressed model's, vLLM.

# %%
import csv
import json
import tempfile
from importlib.util import find_spec
from pathlib import Path

import matplotlib.pyplot as plt

import kvopt
from kvopt import cli, plots
from kvopt.export import export

cli.keep_compiled()  # as the command does: keeps compiled programs on disk, in KVOPT_CACHE or the user's cache folder
temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
question = {"model": "llama-3.1-8b", "accelerator": "h100-sxm", "gpus": 1, "context": "32k", "turns": 3}

# %% [markdown]
# ## Ask
#
# Every verb of the command line is a function. `progress` is called with a phase and the share of the work that is done. Here it goes into a list; a tracker
# hangs on it in two lines:
#
# ```python
# kvopt.optimize(**question, progress=lambda phase, share: mlflow.log_metric("share", share))
# kvopt.optimize(**question, progress=lambda phase, share: wandb.log({"phase": phase, "share": share}))
# kvopt.optimize(**question, progress=lambda phase, share: writer.add_scalar("share", share, global_step=next(count)))  # TensorBoard
# ```

# %%
phases = []
result = kvopt.optimize(**question, progress=lambda phase, share: phases.append((phase, share)))

with (folder / "phases.csv").open("w", newline="") as file:
    csv.writer(file).writerows([("phase", "share"), *phases])
shares = [share for _, share in phases]
assert shares == sorted(shares)
assert 0 <= shares[0] <= shares[-1] <= 1
print(phases)

# %% [markdown]
# ## Read
#
# Printed, a result is the report of the command.

# %%
print(result)

# %% [markdown]
# `result.data` is the object that `--json` prints. The answer itself is the plan that the engine can run today; beside it stand the uncompressed `baseline`,
# the best `research` plan, and what the gap between today and research is worth.

# %%
plan, metrics = result.data["plan"], result.data["metrics"]
print(plan["methods"], plan["where"], f"{plan['key_bits']:g} bits, chunk {plan['chunk']:g}, max-num-seqs {plan['max_num_seqs']}")
print(f"{metrics['sessions_per_gpu_hour']:.0f} sessions per GPU-hour, uncompressed {result.data['baseline']['sessions_per_gpu_hour']:.0f}")
assert result.feasible
assert plan["where"] == "engine-ready"
assert metrics["sessions_per_gpu_hour"] >= result.data["baseline"]["sessions_per_gpu_hour"]
assert result.data["research"]["metrics"]["sessions_per_gpu_hour"] >= metrics["sessions_per_gpu_hour"]
print("today to research:", result.data["gap"])

# %% [markdown]
# Every limit has its value, and what is left to it. Those without slack bind; `bottleneck` says them in words. A rate cannot rise above the prefill ceiling,
# however small the cache: where the answer is close to it, compression has done what it can.

# %%
for limit in result.data["constraints"]:
    print(limit["name"], limit["value"], "of", limit["limit"])
assert all(limit["satisfied"] for limit in result.data["constraints"])
print("what binds:", result.data["bottleneck"])
assert metrics["sessions_per_gpu_hour"] < metrics["prefill_ceiling_per_gpu_hour"]

# %% [markdown]
# The bound says how good the search was: no deployable plan serves more than that, within the model. `model_percent` says how good the model is: by how many
# percent prefill and decoding may take longer than predicted. The first is about the search, the second about the world.

# %%
print(result.data["bound"])
assert result.data["bound"]["sessions_per_gpu_hour"] >= metrics["sessions_per_gpu_hour"] * (1 - 1e-6)

# %% [markdown]
# ## Why
#
# `explain` fills in the arithmetic of a plan: of each metric the formula, its terms, and the one that dominates.

# %%
reasons = kvopt.explain(**question, plan=plan)
rate = next(row for row in reasons.data["explained"] if row["metric"] == "sessions_per_gpu_hour")
print(rate["formula"])
for term in rate["terms"]:
    print(f"  {term['name']}: {term['value']:.3g} {term['unit']}")
spent = sum(term["value"] for term in rate["terms"])
assert abs(3600 / spent / metrics["sessions_per_gpu_hour"] - 1) < 1e-3  # the terms are all there is
print("dominates:", rate["dominates"])

# %% [markdown]
# ## Take away
#
# As rows, as a table of pandas (where it is installed), as JSON; and as a folder that can be loaded again.

# %%
assert [row["point"] for row in result.rows()] == ["answer", "research", "baseline"]
if find_spec("pandas"):
    print(result.to_frame()[["point", "methods", "sessions_per_gpu_hour", "accuracy_lower"]])
assert json.loads(result.to_json()) == result.data

result.save(folder / "answer")
again = kvopt.load(folder / "answer")
assert again.data == result.data

# %% [markdown]
# ## The front
#
# What does each further step of throughput cost in accuracy? `pareto` gives the points that no other one is better than in both, of plans that the engine runs
# today and of research plans. `kvopt.plots` draws on your own axes.

# %%
front = kvopt.pareto(**question)
points = {name: [point for point in front.data["points"] if point["front"] == name] for name in ("deployable", "research")}
print({name: len(found) for name, found in points.items()})
for point in points["deployable"]:
    kept = point["metrics"]["accuracy_retained"]
    print(f"{point['metrics']['sessions_per_gpu_hour']:.0f} sessions/GPU-hour keeping {100 * kept:.1f} %:", point["plan"]["methods"])


def better(one, other):
    """Whether one point is better than another in both."""
    return all(one["metrics"][goal] > other["metrics"][goal] for goal in front.data["objectives"])


for found in points.values():
    assert found
    assert not any(better(one, other) for one in found for other in found)

# %%
figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")  # a notebook shows it below the cell
assert plots.front(front, axes) is axes
figure.savefig(folder / "front.png")
assert (folder / "front.png").stat().st_size > 10_000

# %% [markdown]
# `write_run` writes what the command's `--out` does: the result, its pictures, `report.html` to open in a browser, and the engine's launch files.

# %%
kvopt.write_run(front, folder / "run")
print(sorted(path.name for path in (folder / "run").iterdir()))
assert (folder / "run" / "report.html").exists()
assert kvopt.load(folder / "run").data == front.data

# %% [markdown]
# ## Start the engine
#
# The same plan as a command: `kvopt export vllm FOLDER` in a terminal. What the engine cannot be told stands under `cannot`; empty means that it runs the
# plan as it is.

# %%
command = export("vllm", kvopt.load(folder / "run"))
print(command.text)
assert "vllm serve" in command.text
assert f"--max-num-seqs {front.data['answer']['plan']['max_num_seqs']}" in " ".join(command.text.split())
assert not command.cannot

# %%
temporary.cleanup()
