"""Names of accelerators as logs and papers write them."""

import csv
from pathlib import Path

import pytest

from kvopt.catalog import ids
from kvopt.errors import BadInput
from kvopt.inputs.accelerator import read_accelerator
from kvopt.inputs.accelerator_names import cards, parse, resolve, resolve_measured

EVIDENCE = Path(__file__).parents[4] / "shared" / "data"


@pytest.mark.parametrize(
    ("text", "id_"),
    [
        ("NVIDIA H100 80GB", "h100-sxm"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("H100-SXM", "h100-sxm"),
        ("h100_sxm", "h100-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("A100-80GB", "a100-80-sxm"),
        ("A100-80", "a100-80-sxm"),
        ("NVIDIA A100-SXM4-80GB", "a100-80-sxm"),
        ("NVIDIA A100 40GB", "a100-40-sxm"),
        ("NVIDIA A100-PCIE-40GB", "a100-40-pcie"),
        ("NVIDIA A100 80GB PCIe", "a100-80-pcie"),
        ("h200_sxm", "h200-sxm"),
        ("b300_sxm", "b300-sxm"),
        ("NVIDIA B300 288GB", "b300-sxm"),
        ("B200 192GB", "b200-sxm"),
        ("GB200", "gb200-nvl72"),
        ("NVIDIA GB200 (184 GiB)", "gb200-nvl72"),
        ("NVIDIA GH200 96GB", "gh200-96"),
        ("NVIDIA GH200 480GB", "gh200-96"),
        ("NVIDIA H20", "h20"),
        ("NVIDIA H20 141GB", "h20-3e"),
        ("H20-3e-143GB", "h20-3e"),
        ("H800-SXM", "h800-sxm"),
        ("NVIDIA L40 48GB", "l40"),
        ("RTX 4090 24GB", "rtx-4090"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("RTX 3080 Ti 12GB", "rtx-3080-ti"),
        ("RTX-PRO-6000-BSE", "rtx-pro-6000-server"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000-server"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada"),
        ("NVIDIA Quadro (RTX) A4000 16GB", "rtx-a4000"),
        ("Tesla V100-SXM2-32GB", "v100-sxm2-32"),
        ("Tesla T4", "t4"),
        ("A10", "a10"),
        ("NVIDIA A10G", "a10g"),
        ("GB10 (DGX Spark)", "dgx-spark-gb10"),
        ("Apple M1 Max 32-core", "m1-max-32"),
        ("Apple M2 Ultra 76-core", "m2-ultra-76"),
        ("Apple M3 Max 40-core", "m3-max-40"),
        ("MI300X", "mi300x"),
        ("AMD Instinct MI300X", "mi300x"),
        ("Intel Arc Pro B60", "arc-pro-b60"),
        ("Gaudi2", "gaudi2"),
        ("TPU v6e", "tpu-v6e"),
    ],
)
def test_names_people_write(text: str, id_: str) -> None:
    assert resolve(text) == resolve_measured(text) == id_
    assert read_accelerator(text).id == id_


@pytest.mark.parametrize(
    "text",
    [
        "NVIDIA RTX 4090 48GB (modded)",  # another memory than the card's
        "RTX 3080 12GB",
        "H100 96GB",
        "MI250 (64 GB)",
        "RTX 4090 D",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "L40S SXM",
        "Apple M1 Max",
        "NVIDIA A100",  # two sizes of memory
        "Mac Studio M4 Max 128GB",
        "16 GB GPU (15.99 GiB)",
        "8 GPUs",
        "not stated",
        "NVIDIA",
        "80GB",
        "()",
        "",
    ],
)
def test_names_of_other_cards_are_refused(text: str) -> None:
    assert resolve(text) is None
    assert resolve_measured(text) is None


@pytest.mark.parametrize(
    ("text", "id_"),
    [("h100", "h100-sxm"), ("NVIDIA H100", "h100-sxm"), ("8x L40S", "l40s"), ("2x DGX Spark", "dgx-spark-gb10"), ("4 x H100 80GB", "h100-sxm")],
)
def test_rows_of_measurements_mean_sxm_and_may_count(text: str, id_: str) -> None:
    assert resolve(text) is None
    assert resolve_measured(text) == id_


@pytest.mark.parametrize("family", ["h100", "a100", "v100"])
def test_scenarios_are_asked_which_card_they_mean(family: str) -> None:
    with pytest.raises(BadInput, match="is more than one"):
        read_accelerator(family)


@pytest.mark.parametrize("id_", ids("accelerators"))
def test_ids_names_and_aliases_mean_their_card(id_: str) -> None:
    spec = read_accelerator(id_)
    assert resolve(id_) == resolve(spec.name) == id_
    assert next(card for card in cards() if card.id == id_).is_meant(parse(spec.name))
    for alias in spec.aliases:
        assert resolve(alias) == id_, alias


@pytest.mark.parametrize(
    ("file", "column"),
    [
        ("latency_points.csv", "gpu"),
        ("capacity_logs.csv", "gpu"),
        ("kernel_points.csv", "gpu"),
        ("peers/aiconfigurator_vs_silicon.csv", "system"),
        ("peers/one_scenario_predictions.csv", "hardware"),
    ],
)
def test_evidence_names_accelerators_of_the_catalog(file: str, column: str) -> None:
    """97 of 100 rows that name an accelerator; `NVIDIA A100` leaves the memory open, and the card of 48 GB is no RTX 4090 as sold."""
    if not (EVIDENCE / file).exists():
        pytest.skip("the folder with the evidence is not beside the repository")
    named = [row[column] for row in csv.DictReader((EVIDENCE / file).read_text(encoding="utf-8").splitlines()) if row[column]]
    lost = [name for name in named if resolve_measured(name) is None]
    assert set(lost) <= {"NVIDIA A100", "NVIDIA RTX 4090 48GB (modded)"}
    assert len(lost) <= 0.03 * len(named), sorted(set(lost))
