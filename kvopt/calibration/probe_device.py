"""Which device was probed, and the accelerator file that its figures make: the data sheet's peaks with measured shares of them, or measured peaks."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import jax

from kvopt.calibration.outcome import Calibrated
from kvopt.calibration.probe import Probe, Rate, default_device
from kvopt.inputs.accelerator import AcceleratorSpec, Number, read_accelerator
from kvopt.inputs.accelerator_names import resolve_measured
from kvopt.inputs.efficiency import EfficiencySpec

POOL = 0.75  # share of a GPU's memory that JAX takes unless told otherwise


@dataclass(frozen=True)
class Device:
    """The device that JAX computes on."""

    name: str
    platform: str  # cpu, gpu, tpu
    memory_bytes: float
    memory_source: str

    @property
    def id(self) -> str:
        """For file names."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    @property
    def catalogued(self) -> AcceleratorSpec | None:
        """The catalog's accelerator of this name, where there is one."""
        found = None if self.platform == "cpu" else resolve_measured(self.name)
        return read_accelerator(found) if found else None

    @property
    def largest_bytes(self) -> float:
        """How large an array the probe may use: a sixteenth of the memory, from 64 MiB to 4 GiB on a GPU and 1 GiB on a CPU."""
        return min(max(self.memory_bytes / 16, 2.0**26), 2.0**30 if self.platform == "cpu" else 2.0**32)


def device() -> Device:
    """The default device of JAX."""
    found = default_device()
    if found.platform == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return Device(f"{_processor()}, {cores} core{'s' if cores > 1 else ''}", "cpu", *_host_memory())
    return Device(found.device_kind, found.platform, *_device_memory(found))


def _processor() -> str:
    """The processor's name as the system states it."""
    try:
        named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        named = None
    return (named[1] if named else platform.processor() or platform.machine() or "CPU").strip()


def _host_memory() -> tuple[float, str]:
    """[bytes] that the system has, or that the container may use."""
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    try:
        limit = float(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no such limit, or "max"
        limit = total
    return (limit, "the container's limit") if limit < total else (total, "the system's memory")


def _device_memory(found: Any) -> tuple[float, str]:
    """[bytes] of a GPU: JAX's pool is a stated share of all of it."""
    stats = found.memory_stats() or {}
    share = float(os.environ.get("XLA_CLIENT_MEM_FRACTION") or os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION") or POOL)
    limit = float(stats.get("bytes_limit", 0.0))
    return (limit / share, f"JAX's pool of {limit:,.0f} bytes / {share:g}") if limit else (16 * 2.0**30, "assumed: JAX does not say")


def calibrated(found: Probe, on: Device, name: str | None = None) -> Calibrated:
    """The probe's figures as an accelerator and a table."""
    known = on.catalogued
    spec = _shares(known, found, on) if known else _measured(found, on)
    if name:
        spec = spec.model_copy(update={"name": name})
    launch = f"a step that computes nothing takes {found.launch_s * 1e6:,.1f} us to launch from JAX; an engine's own overhead: kvopt calibrate FILE"
    rows = _table(found, known)
    return Calibrated(
        kind="probe",
        source=f"JAX on {on.name}",
        spec=spec.model_copy(update={"notes": "; ".join(note for note in (spec.notes, launch) if note)}),
        columns=("what", "measured", "of the data sheet", "shape"),
        rows=tuple(
            (what, f"{value:.4g} {unit}", "-" if share is None else f"{100 * share:.0f} %", shape) for what, value, unit, share, shape in rows
        ),
        notes=(
            "Best of several runs of plain JAX: an engine reaches less of the products and may read caches faster; kvopt calibrate FILE fits an engine.",
        ),
        data={"device": on.name, "measured": [dict(zip(("what", "value", "unit", "of_peak", "shape"), row, strict=True)) for row in rows]},
    )


def _source(on: Device, shape: str) -> str:
    return f"kvopt calibrate --probe, jax {jax.__version__} on {on.name}, {date.today()}: {shape}"


def _number(value: float, on: Device, shape: str) -> dict[str, Any]:
    return {"value": float(f"{value:.4g}"), "source": _source(on, shape), "tag": "measured"}


def _shares(known: AcceleratorSpec, found: Probe, on: Device) -> AcceleratorSpec:
    """The data sheet's peaks, and the measured shares of them."""
    product, memory, peak = found.fastest("bfloat16", "float16"), known.memory_bandwidth_gbs.value, known.peak("bf16").value
    faster, slower = _directions(found)
    link = known.host_gbs or Number.model_validate(_number(faster.gbs, on, faster.shape))
    efficiency = {
        "mfu": _number(product.tflops / peak, on, f"{product.shape}, {product.tflops:.4g} of {peak:g} TFLOP/s"),
        "mbu": _number(found.read.gbs / memory, on, f"{found.read.shape}, {found.read.gbs:.4g} of {memory:g} GB/s"),
        "mbu_kv": _number(found.attention.gbs / memory, on, f"{found.attention.shape}, {found.attention.gbs:.4g} of {memory:g} GB/s"),
        "host_link": _number(slower.gbs / link.value, on, f"{slower.shape}, {slower.gbs:.4g} of {link.value:g} GB/s"),
        **_ramp(found, on),
    }
    return known.model_copy(update={"host_gbs": link, "efficiency": EfficiencySpec.model_validate(efficiency)})


def _measured(found: Probe, on: Device) -> AcceleratorSpec:
    """A device that the catalog does not know: its best figures are its peaks. A CPU multiplies 16-bit weights in 32 bit where that is faster."""
    cpu = on.platform == "cpu"
    product, half = found.fastest("bfloat16", *(("float32",) if cpu else ())), found.fastest("float16")
    faster, slower = _directions(found)
    peak = "the peak of this file is this measurement"
    data = {
        "id": on.id,
        "name": on.name,
        "form_factor": "CPU" if cpu else "",
        "memory_gb": _number(on.memory_bytes / 2**30, on, f"{on.memory_source}, in GiB"),
        "visible_bytes": _number(on.memory_bytes, on, on.memory_source) | {"value": round(on.memory_bytes)},
        "memory_bandwidth_gbs": _number(found.read.gbs, on, found.read.shape),
        "bf16_tflops": _number(product.tflops, on, product.shape),
        "fp16_tflops": _number(half.tflops, on, half.shape),
        "host_link": "host memory" if cpu else "",
        "host_gbs": _number(faster.gbs, on, faster.shape),
        "efficiency": {
            "mfu": _number(1.0, on, f"{product.shape}; {peak}"),
            "mbu": _number(1.0, on, f"{found.read.shape}; {peak}"),
            "mbu_kv": _number(found.attention.gbs / found.read.gbs, on, f"{found.attention.shape}, {found.attention.gbs:.4g} GB/s"),
            "host_link": _number(slower.gbs / faster.gbs, on, f"{slower.shape}, the slower of both ways"),
            **_ramp(found, on),
        },
    }
    return AcceleratorSpec.model_validate(data)


def _directions(found: Probe) -> tuple[Rate, Rate]:
    """The faster way over the host link, and the slower."""
    slower, faster = sorted((found.to_device, found.from_device), key=lambda rate: rate.gbs)
    return faster, slower


def _ramp(found: Probe, on: Device) -> dict[str, Any]:
    tokens = found.ramp_tokens
    shape = f"{found.products[0].dtype} products bound by arithmetic: seconds over tokens as a line"
    return {} if tokens is None else {"ramp_tokens": _number(tokens, on, shape)}


def _table(found: Probe, known: AcceleratorSpec | None) -> list[tuple[str, float, str, float | None, str]]:
    """(What, value, unit, share of the data sheet's peak, shape)."""
    peaks: dict[str, Number | None] = {} if known is None else {"bfloat16": known.bf16_tflops, "float16": known.fp16_tflops}

    def share(value: float, peak: Number | None) -> float | None:
        return None if peak is None else value / peak.value

    memory, link = (known.memory_bandwidth_gbs, known.host_gbs) if known else (None, None)
    rates = (
        ("reading memory", found.read, memory),
        ("reading a cache", found.attention, memory),
        ("host to device", found.to_device, link),
        ("device to host", found.from_device, link),
    )
    return [
        *(("product", p.tflops, "TFLOP/s", share(p.tflops, peaks.get(p.dtype)), p.shape) for p in found.products),
        *((what, rate.gbs, "GB/s", share(rate.gbs, peak), rate.shape) for what, rate, peak in rates),
        ("launching a step", found.launch_s * 1e6, "us", None, "an addition of one number"),
    ]
