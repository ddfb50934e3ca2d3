import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from kvopt.catalog import ids
from kvopt.errors import BadInput
from kvopt.inputs.accelerator import WEIGHT_FORMATS, AcceleratorSpec, read_accelerator
from kvopt.inputs.sourced import UNSOURCED, Sourced

TABLE = Path(__file__).parents[3] / ".." / "shared" / "data" / "accelerators.csv"
CARD = {"memory_gb": 80, "memory_bandwidth_gbs": 2000, "bf16_tflops": 300, "host_gbs": 32}


def numbers(spec):
    return {name: number for name in AcceleratorSpec.model_fields if isinstance(number := getattr(spec, name), Sourced)}


def card(folder, name="card.yaml", **changes):
    path = folder / name
    path.write_text(yaml.safe_dump({key: value for key, value in {**CARD, **changes}.items() if value is not None}))
    return str(path)


@pytest.mark.parametrize("id_", ids("accelerators"))
def test_catalog_numbers_all_have_sources(id_):
    spec = read_accelerator(id_)
    assert spec.id == id_
    for name, number in numbers(spec).items():
        assert number.source not in ("", UNSOURCED), name
    tree = spec.pytree("bf16")
    assert all(isinstance(leaf, np.float64) for leaf in vars(tree).values())
    assert tree.peak_flops == tree.peak_flops_16bit > 0
    for fmt in WEIGHT_FORMATS:
        assert spec.pytree(fmt).peak_flops >= tree.peak_flops or spec.arch == "Blackwell Ultra"  # INT8 nearly removed there
    nan = {name for name, leaf in vars(tree).items() if math.isnan(leaf)}
    field = {"scaleup_bandwidth": "scaleup_gbs", "host_bandwidth": "host_gbs", "price_per_hour": "usd_per_h", "power": "tdp_w"}
    assert {field[name] for name in nan} == set(spec.missing())


@pytest.mark.skipif(not TABLE.exists(), reason="the evidence folder with accelerators.csv is not beside the project")
def test_catalog_is_the_table():
    rows = {row["id"]: row for row in csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()) if row["confidence"] in ("medium", "high")}
    assert set(rows) <= set(ids("accelerators"))
    columns = {
        "memory_gb": "mem_gb",
        "memory_bandwidth_gbs": "hbm_bw_gbs",
        "bf16_tflops": "bf16_tflops",
        "fp16_tflops": "fp16_tflops",
        "fp8_tflops": "fp8_tflops",
        "int8_tops": "int8_tops",
        "fp4_tflops": "fp4_tflops",
        "scaleup": "scaleup_gbs_unidir",
        "host_gbs": "host_gbs_unidir",
        "tdp_w": "tdp_w",
        "all_in_kw": "allin_kw_per_gpu",
        "usd_per_h_low": "usd_per_h_low",
        "usd_per_h_high": "usd_per_h_high",
    }
    for id_, row in rows.items():
        spec = read_accelerator(id_)
        assert (spec.name, spec.vendor, spec.arch, spec.confidence) == (row["name"], row["vendor"], row["arch"], row["confidence"])
        for field, column in columns.items():
            number = getattr(spec, field)
            if row[column]:
                assert number.value == float(row[column]), (id_, field)
            else:
                assert number is None or number.tag == "derived", (id_, field)
        if row["mem_bytes_reported"]:
            assert spec.pytree().memory_bytes == float(row["mem_bytes_reported"])
        if row["usd_per_h"]:
            assert spec.usd_per_h.value == float(row["usd_per_h"])
            assert spec.usd_per_h.source == row["price_source"]


def test_h100_in_si_units():
    tree = read_accelerator("h100-sxm").pytree("bf16")
    assert tree.peak_flops == tree.peak_flops_16bit == 989e12
    assert tree.memory_bytes == 80 * 2**30
    assert tree.memory_bandwidth == 3350e9
    assert tree.scaleup_bandwidth == 450e9
    assert tree.host_bandwidth == 64e9
    assert tree.host_memory_bytes == 160e9
    assert tree.host_full_duplex == 1
    assert tree.price_per_hour == 4.76
    assert tree.power == 700


def test_host_memory_of_ones_own():
    assert read_accelerator("h100-sxm").pytree(host_memory_gb=256).host_memory_bytes == 256e9
    assert read_accelerator("h100-sxm").pytree(host_memory_gb=0).host_memory_bytes == 0
    for bad in (-1, math.nan, math.inf):
        with pytest.raises(BadInput, match=r"^host memory"):
            read_accelerator("h100-sxm").pytree(host_memory_gb=bad)


def test_logged_memory():
    h100 = read_accelerator("h100-sxm")
    assert h100.pytree(memory="logged").memory_bytes == pytest.approx(79.19 * 2**30, rel=1e-9)
    assert read_accelerator("mi325x").pytree(memory="logged").memory_bytes == 256 * 2**30  # no log: as reported


@pytest.mark.parametrize(
    ("id_", "weight_format", "tflops"),
    [
        ("a100-80-sxm", "fp8", 312),  # no FP8 units
        ("h100-sxm", "fp8", 1979),
        ("h100-sxm", "int8", 989),  # weight-only: dequantised
        ("h100-sxm", "w8a8", 1979),
        ("h100-sxm", "mxfp4", 989),
        ("h100-sxm", "nvfp4", 989),
        ("b200-sxm", "nvfp4", 9000),
        ("t4", "bf16", 65),  # no bf16 units: fp16
    ],
)
def test_peak_of_weight_format(id_, weight_format, tflops):
    assert read_accelerator(id_).pytree(weight_format).peak_flops == tflops * 1e12


def test_unknown_weight_format():
    with pytest.raises(BadInput, match=r"weight format: fp9: .*fp8"):
        read_accelerator("h100-sxm").pytree("fp9")


def test_peers_without_scaleup_link_talk_over_the_host_link():
    spec = read_accelerator("rtx-4090")
    assert spec.scaleup_gbs is None
    assert spec.scaleup.value == 32
    assert spec.scaleup.tag == "derived"


def test_tpu_unknowns_are_nan():
    spec = read_accelerator("tpu-v4")
    assert spec.missing() == ("scaleup_gbs", "host_gbs", "usd_per_h", "tdp_w")
    assert math.isnan(spec.pytree().scaleup_bandwidth)


@pytest.mark.parametrize("text", ["H100-SXM", " h100-sxm ", "H100 SXM5 80GB", "h100  sxm5 80gb"])
def test_id_and_name_in_any_case(text):
    assert read_accelerator(text).id == "h100-sxm"


def test_unknown_id_names_the_nearest():
    with pytest.raises(BadInput, match=r"^accelerator: h100-sxn: not known; did you mean h100-sxm"):
        read_accelerator("h100-sxn")


def test_a_family_name_lists_its_members():
    with pytest.raises(BadInput, match=r"^accelerator: a100: is more than one; one of a100-40-pcie, .*a100-80-sxm$"):
        read_accelerator("a100")


@pytest.mark.parametrize("name", ["card.yaml", "card.json"])
def test_card_of_ones_own(tmp_path, name):
    path = tmp_path / name
    path.write_text(json.dumps({**CARD, "tdp_w": {"value": 300, "source": "data sheet", "tag": "published"}}))
    spec = read_accelerator(str(path))
    assert spec.id == spec.name == "card"
    assert spec.memory_gb.tag == "assumed"
    assert spec.memory_gb.source == UNSOURCED
    assert spec.tdp_w.tag == "published"
    assert spec.pytree().memory_bytes == 80 * 2**30
    assert spec.pytree().host_memory_bytes == 160e9
    assert spec.missing() == ("usd_per_h",)


def test_misspelt_field_names_field_file_and_nearest(tmp_path):
    with pytest.raises(BadInput) as caught:
        read_accelerator(card(tmp_path, memory_bandwith_gbs=2000))
    assert str(caught.value) == "accelerator.memory_bandwith_gbs: 2000: not a field of card.yaml; did you mean memory_bandwidth_gbs?"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"memory_gb": 0}, "memory_gb"),
        ({"memory_bandwidth_gbs": -1}, "memory_bandwidth_gbs"),
        ({"bf16_tflops": math.inf}, "bf16_tflops"),
        ({"tdp_w": math.nan}, "tdp_w"),
        ({"tdp_w": True}, "tdp_w"),
        ({"tdp_w": "hot"}, "tdp_w"),
        ({"host_full_duplex": 2}, "host_full_duplex"),
        ({"scaleup_domain": 0}, "scaleup_domain"),
        ({"memory_gb": None}, "memory_gb"),
        ({"memory_gb": {"value": 80, "source": "sheet", "tag": "guessed"}}, "memory_gb.tag"),
        ({"memory_gb": {"value": 80}}, "memory_gb.source"),
        ({"confidence": "total"}, "confidence"),
    ],
)
def test_impossible_values(tmp_path, changes, field):
    with pytest.raises(BadInput, match=r"card\.yaml") as caught:
        read_accelerator(card(tmp_path, **changes))
    assert caught.value.field == f"accelerator.{field}"
    assert "\n" not in str(caught.value)


def test_no_16_bit_peak(tmp_path):
    with pytest.raises(BadInput, match=r"^accelerator: card\.yaml: bf16_tflops or fp16_tflops must be given"):
        read_accelerator(card(tmp_path, bf16_tflops=None))


@pytest.mark.parametrize(("text", "why"), [("nowhere.yaml", "cannot be read"), ("x/y", "cannot be read")])
def test_file_that_is_not_there(text, why):
    with pytest.raises(BadInput, match=why):
        read_accelerator(text)


@pytest.mark.parametrize(
    ("name", "text", "why"), [("a.yaml", "a: [1", "not YAML"), ("a.json", "{", "not JSON, line 1"), ("a.json", "[1]", "must be a mapping")]
)
def test_file_that_is_not_a_mapping(tmp_path, name, text, why):
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=why):
        read_accelerator(str(tmp_path / name))
