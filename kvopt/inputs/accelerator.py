"""Accelerators: what a person writes about one, in the units of data sheets, and the pytree of SI units that the mathematics takes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from kvopt.catalog import ids, read
from kvopt.errors import BadInput, unknown
from kvopt.inputs.accelerator_names import resolve
from kvopt.inputs.efficiency import EfficiencySpec
from kvopt.inputs.sourced import AtLeastOne, NonNegative, Positive, Sourced, checked, is_path, read_mapping
from objectives.types import Accelerator

Number = Sourced[Positive]

# The peak that the weights are multiplied at: the first that the chip has. Formats narrow in memory alone are dequantised and multiplied in 16 bit.
_PEAKS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("bf16", "fp16", "fp32"), ("bf16_tflops", "fp16_tflops")),
    **dict.fromkeys(
        ("int8", "w8a16", "int4", "int4-g32", "w4", "w4a16", "awq", "gptq", "mxfp4", "q8_0", "q4_0", "q4_k_m"), ("bf16_tflops", "fp16_tflops")
    ),
    "fp8": ("fp8_tflops", "bf16_tflops", "fp16_tflops"),
    "w8a8": ("int8_tops", "bf16_tflops", "fp16_tflops"),
    "nvfp4": ("fp4_tflops", "bf16_tflops", "fp16_tflops"),
}
WEIGHT_FORMATS = tuple(_PEAKS)


class AcceleratorSpec(BaseModel):
    """One accelerator. Every number carries its source; a field left out is unknown. Peaks are dense, bandwidths decimal and one way."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(description="the name of the catalog file")
    name: str
    aliases: tuple[str, ...] = Field((), description="other names people write; maker, memory and form factor may be left out or added")
    vendor: str = ""
    arch: str = Field("", description="generation, as Ampere or CDNA3")
    form_factor: str = ""
    confidence: Literal["low", "medium", "high"] = Field("low", description="high: two agreeing sources or the maker's own table")
    sources: str = Field("", description="where the numbers of this file are from, where they do not say otherwise")
    notes: str = ""

    memory_gb: Number = Field(description="memory as the maker names it [GB, GiB or between: makers differ]")
    visible_bytes: Number | None = Field(None, description="memory that the driver reports [bytes]; else memory_gb is read as GiB")
    logged_bytes: Number | None = Field(None, description="memory that serving engines log at start-up, often a little less [bytes]")
    memory_bandwidth_gbs: Number = Field(description="[GB/s]")
    bf16_tflops: Number | None = Field(None, description="dense peak [TFLOP/s], FP32 accumulation")
    fp16_tflops: Number | None = Field(None, description="dense peak [TFLOP/s], FP32 accumulation")
    fp8_tflops: Number | None = Field(None, description="dense peak [TFLOP/s]")
    int8_tops: Number | None = Field(None, description="dense peak [TOP/s]")
    fp4_tflops: Number | None = Field(None, description="dense peak [TFLOP/s]")
    scaleup_link: str = Field("", description="what joins the accelerators of a tensor-parallel group; empty: the host link")
    scaleup_gbs: Number | None = Field(None, description="scale-up bandwidth of one accelerator, one way [GB/s]")
    scaleup_domain: Sourced[AtLeastOne] | None = Field(None, description="accelerators that this link joins")
    host_link: str = ""
    host_gbs: Number | None = Field(None, description="host link, one way [GB/s]")
    host_full_duplex: Sourced[StrictBool] = Field(
        default=Sourced[StrictBool](value=True, source="assumed: as PCI Express, which has a pair of wires per direction", tag="assumed"),
        description="whether the host link carries both directions at once",
    )
    host_memory_gb: Sourced[NonNegative] | None = Field(None, description="host memory per accelerator [GB]; else twice memory_gb")
    tdp_w: Number | None = Field(None, description="board power [W]")
    all_in_kw: Number | None = Field(None, description="provisioned power per accelerator, host and network included [kW]")
    usd_per_h: Number | None = Field(None, description="price [USD per accelerator and hour]")
    usd_per_h_low: Number | None = Field(None, description="lowest price seen [USD per accelerator and hour]")
    usd_per_h_high: Number | None = Field(None, description="highest price seen [USD per accelerator and hour]")

    efficiency: EfficiencySpec | None = Field(None, description="what was measured of it, in place of the catalog's profile")

    @model_validator(mode="after")
    def _has_a_16bit_peak(self) -> AcceleratorSpec:
        if self.peak_16bit is None:
            raise ValueError("bf16_tflops or fp16_tflops must be given")
        return self

    @property
    def peak_16bit(self) -> Number | None:
        """The peak of 16-bit matrix products [TFLOP/s]: bf16, or fp16 on chips without bf16."""
        return self.bf16_tflops or self.fp16_tflops

    @property
    def memory(self) -> Number:
        """Memory [bytes]: what the driver reports, or `memory_gb` read as GiB, as the makers of GPUs mean it."""
        return self.visible_bytes or Number(value=self.memory_gb.value * 2**30, source=f"{self.memory_gb.source}; read as GiB", tag="derived")

    @property
    def scaleup(self) -> Number | None:
        """Bandwidth to a peer, one way [GB/s]: the scale-up link's, or the host link's where there is none."""
        if self.scaleup_gbs or self.host_gbs is None or self.scaleup_link:
            return self.scaleup_gbs
        return Number(value=self.host_gbs.value, source=f"no scale-up link: peers talk over the host link ({self.host_link})", tag="derived")

    @property
    def host_memory(self) -> Sourced[NonNegative]:
        """Host memory per accelerator [GB]."""
        return self.host_memory_gb or Sourced[NonNegative](value=2 * self.memory_gb.value, source="assumed: twice its own memory", tag="assumed")

    def peak(self, weight_format: str) -> Number:
        """The peak [TFLOP/s] of the precision that weights of this format are multiplied in. Raises `BadInput` for an unknown format."""
        if weight_format not in _PEAKS:
            raise unknown("weight format", weight_format, _PEAKS)
        return next(peak for name in _PEAKS[weight_format] if (peak := getattr(self, name)) is not None)

    def missing(self) -> tuple[str, ...]:
        """The fields that are unknown and leave NaN in the pytree."""
        known = {"scaleup_gbs": self.scaleup, "host_gbs": self.host_gbs, "usd_per_h": self.usd_per_h, "tdp_w": self.tdp_w}
        return tuple(name for name, number in known.items() if number is None)

    def pytree(
        self, weight_format: str = "bf16", host_memory_gb: float | None = None, memory: Literal["reported", "logged"] = "reported"
    ) -> Accelerator:
        """The accelerator in SI units, float64 leaves, NaN where unknown. `host_memory_gb` per accelerator [GB] takes the place of the assumed one.

        `memory="logged"` gives the memory that engines log, where a log is known, in place of what the driver reports.
        """
        if host_memory_gb is not None and not 0 <= host_memory_gb < np.inf:
            raise BadInput("host memory", host_memory_gb, "must be a number of GB, zero or more")
        size = self.logged_bytes or self.memory if memory == "logged" else self.memory
        return Accelerator(
            peak_flops=np.float64(self.peak(weight_format).value * 1e12),
            peak_flops_16bit=_si(self.peak_16bit, 1e12),
            memory_bytes=np.float64(size.value),
            memory_bandwidth=_si(self.memory_bandwidth_gbs, 1e9),
            scaleup_bandwidth=_si(self.scaleup, 1e9),
            host_bandwidth=_si(self.host_gbs, 1e9),
            host_memory_bytes=np.float64((self.host_memory.value if host_memory_gb is None else host_memory_gb) * 1e9),
            host_full_duplex=np.float64(self.host_full_duplex.value),
            price_per_hour=_si(self.usd_per_h, 1.0),
            power=_si(self.tdp_w, 1.0),
        )


def _si(number: Number | None, factor: float) -> np.float64:
    return np.float64(np.nan if number is None else number.value * factor)


def read_accelerator(text: str) -> AcceleratorSpec:
    """The accelerator of a catalog id or name, of a name as logs write it (`NVIDIA H100 80GB HBM3`), or of a YAML or JSON file of its fields.

    Case does not matter. In a file of one's own `id` and `name` may be left out and numbers may be plain. Raises `BadInput` with the nearest ids for
    an unknown name.
    """
    key = " ".join(text.split()).lower()
    if key in ids("accelerators"):
        return _from_catalog(key)
    if is_path(text):
        path = Path(text)
        return checked(AcceleratorSpec, {"id": path.stem, "name": path.stem, **read_mapping(path, "accelerator")}, "accelerator", path.name)
    by_name = resolve(text)
    if by_name is None and key and (family := [id_ for id_ in ids("accelerators") if id_.startswith(key)]):
        raise BadInput(
            "accelerator", text, f"is more than one; one of {', '.join(family)}" if len(family) > 1 else f"not known; did you mean {family[0]}?"
        )
    if by_name is None:
        raise unknown("accelerator", text, ids("accelerators"))
    return _from_catalog(by_name)


def _from_catalog(id_: str) -> AcceleratorSpec:
    return checked(AcceleratorSpec, {"id": id_, **read("accelerators", id_)}, "accelerator", f"{id_}.yaml")
