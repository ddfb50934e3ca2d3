"""Prices, outcomes and chances as people and files get them."""

import json

import kvopt
from kvopt.report import text
from kvopt.results import Result


def test_a_table_has_a_number_or_both_ends_and_what_one_more_unit_buys(optimized):
    unit = {
        "unit": "GB of HBM a GPU",
        "amount": 1e9,
        "users_per_gpu": 0.435,
        "sessions_per_gpu_hour": None,
        "sessions_per_gpu_hour_interval": [3.0, 4.5],
    }
    bent = {"left": 0.5, "right": None, "right_interval": [0.1, 0.25], "per_unit": unit}
    said = text(Result("sensitivity", {**optimized.data, "elasticities": {"hbm_bytes": bent, "host_memory": {"left": None, "right": 0.0}}}))
    row = next(line for line in said.splitlines() if line.startswith("hbm bytes"))
    for part in ("0.50", "0.10 to 0.25", "GB of HBM a GPU", "+0.435", "+3.00 to +4.50"):
        assert part in row
    assert "unknown" in next(line for line in said.splitlines() if line.startswith("host memory"))


def test_rows_of_a_sensitivity_are_flat(optimized):
    bent = {"left": 0.5, "right": None, "per_unit": {"unit": "GB", "users_per_gpu": 0.4}}
    (row,) = Result("sensitivity", {**optimized.data, "elasticities": {"hbm_bytes": bent}}).rows()
    assert row == {"input": "hbm_bytes", "left": 0.5, "right": None, "per_unit.unit": "GB", "per_unit.users_per_gpu": 0.4}


def test_sensitivity_prices_every_input_and_the_floor():
    result = kvopt.sensitivity(model="llama-3.1-8b", accelerator="h100-sxm", gpus=1, context="32k", methods="fp8")
    found = json.loads(result.to_json())
    assert result.kind == "sensitivity"
    for name, sides in found["elasticities"].items():
        assert {"left", "right"} <= set(sides), name
        assert {"unit", "amount", "users_per_gpu", "sessions_per_gpu_hour"} <= set(sides["per_unit"]), name
    assert found["elasticities"]["hbm_bytes"]["left"] > 0
    assert found["elasticities"]["accuracy_floor"]["per_unit"]["sessions_per_gpu_hour"] >= 0
    counted = found["search"]["outcomes"]
    assert counted["lanes"] == counted["feasible"] + sum(row["count"] for row in counted["by_code"])
