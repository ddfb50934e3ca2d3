"""The probe on whatever device tests run on, with arrays of a megabyte."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import pytest

from kvopt.calibration import accelerator_file, probe, probe_device
from kvopt.calibration.probe import Probe, Product, Rate
from kvopt.calibration.probe_device import Device
from kvopt.inputs.accelerator import read_accelerator

H200 = Device("NVIDIA H200", "gpu", 150e9, "JAX's pool")
WIDTH, SLOPE, RAMP, LAUNCH = 8192, 2 * 8192**2 / 800e12, 96, 1e-5


def made() -> Probe:
    """A card of 800 TFLOP/s that rounds products up by 96 tokens."""
    ladder = tuple(Product("bfloat16", tokens, WIDTH, LAUNCH + SLOPE * (tokens + RAMP)) for tokens in (*probe.TOKENS[:-1], WIDTH))
    others = tuple(Product(dtype, WIDTH, WIDTH, SLOPE * WIDTH * slower) for dtype, slower in (("float16", 1.1), ("float32", 2)))
    return Probe((*ladder, *others), Rate(4320, "4096 MiB"), Rate(2400, "cache"), Rate(54, "2048 MiB"), Rate(48, "2048 MiB"), LAUNCH)


def test_the_ramp_is_where_the_line_meets_zero() -> None:
    assert made().ramp_tokens == pytest.approx(RAMP, rel=1e-6)


def test_two_sizes_tell_no_ramp() -> None:
    found = made()
    assert dataclasses.replace(found, products=found.products[-4:]).ramp_tokens is None


def test_a_known_card_keeps_its_data_sheet() -> None:
    found = probe_device.calibrated(made(), H200)
    spec = found.spec
    assert spec is not None
    assert spec.efficiency is not None
    assert (spec.id, spec.memory_bandwidth_gbs.value) == ("h200-sxm", 4800)
    shares = {name: getattr(spec.efficiency, name) for name in ("mfu", "mbu", "mbu_kv", "host_link")}
    assert shares["mbu"].value == 0.9
    assert shares["mbu_kv"].value == 0.5
    assert shares["host_link"].value == 0.75
    assert 0.7 < shares["mfu"].value < 0.81
    assert all(share.tag == "measured" and f"jax {jax.__version__} on NVIDIA H200" in share.source for share in shares.values())
    assert ("reading memory", "4320 GB/s", "90 %", "4096 MiB") in found.rows


def test_an_unknown_card_is_its_own_peak() -> None:
    spec = probe_device.calibrated(made(), Device("Some GPU 9", "gpu", 64 * 2.0**30, "JAX's pool"), name="Mine").spec
    assert spec is not None
    assert (spec.id, spec.name, spec.memory_gb.value, spec.memory_bandwidth_gbs.value) == ("some-gpu-9", "Mine", 64, 4320)
    assert spec.efficiency is not None
    assert spec.efficiency.mfu is not None
    assert spec.efficiency.mfu.value == 1


def test_this_machine_is_measured_and_its_file_is_read(tmp_path: Path) -> None:
    device = probe_device.device()
    flags = (jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision, jax.config.jax_platforms)
    found = probe.probe(seconds=0.1, largest_bytes=2.0**20)
    assert flags == (jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision, jax.config.jax_platforms)
    rates = (found.read, found.attention, found.to_device, found.from_device)
    assert all(rate.gbs > 0 for rate in rates)
    assert {product.dtype for product in found.products} == set(probe.DTYPES)
    assert 0 < found.launch_s < 0.1
    calibrated = probe_device.calibrated(found, device)
    assert calibrated.spec is not None
    path = tmp_path / "here.yaml"
    accelerator_file.write(calibrated.spec, calibrated.source, path)
    assert read_accelerator(str(path)) == calibrated.spec
    assert device.memory_bytes > 2**29


def test_copies_over_a_link_are_timed_both_ways() -> None:
    out, back = probe._link(probe.default_device(), 0.01, 2.0**20)
    assert out.gbs > 0
    assert back.gbs > 0


@pytest.mark.parametrize("cpu", [True, False])
def test_a_cache_is_read_head_by_head_or_whole(cpu: bool) -> None:
    rate = probe._attention(cpu, 0.01, 2.0**20)
    assert rate.gbs > 0
    assert rate.shape.startswith("float32 cache of 1 sessions x 128 " if cpu else "bfloat16 cache of 1 sessions x 256 ")
