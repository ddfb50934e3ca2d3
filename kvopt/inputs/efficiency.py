"""What share of its peaks an accelerator was measured to reach: the part of an accelerator file that `kvopt calibrate` writes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from kvopt.inputs.sourced import NonNegative, Positive, Sourced


class EfficiencySpec(BaseModel):
    """Efficiencies and overheads measured on one's own machine, in the units of `kvopt catalog profiles`. What is left out is the catalog's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str = Field("", description="engine generation that it was measured with, as `kvopt catalog profiles` names it; empty: holds for all")
    weights: str = Field("", description="class of weight formats that it was measured with, likewise")
    mfu: Sourced[Positive] | None = Field(None, description="dense products, share of the peak")
    mfu_attention: Sourced[Positive] | None = Field(None, description="prefill attention, share of the 16-bit peak")
    mfu_experts: Sourced[Positive] | None = Field(None, description="products of routed experts, share of the peak")
    mbu: Sourced[Positive] | None = Field(None, description="reading weights, share of the memory bandwidth")
    mbu_kv: Sourced[Positive] | None = Field(None, description="reading the cache, share of the memory bandwidth")
    ramp_tokens: Sourced[NonNegative] | None = Field(None, description="[tokens] by which dense products of a step are rounded up")
    expert_ramp_tokens: Sourced[NonNegative] | None = Field(None, description="[tokens] the same for each routed expert that is touched")
    prefill_layer_us: Sourced[NonNegative] | None = Field(None, description="[us] per layer and step with prompt tokens")
    decode_layer_us: Sourced[NonNegative] | None = Field(None, description="[us] per layer and decode step")
    parallel_layer_us: Sourced[NonNegative] | None = Field(None, description="[us] more per layer where ranks share it")
    sequence_us: Sourced[NonNegative] | None = Field(None, description="[us] per request and step")
    server_ms: Sourced[NonNegative] | None = Field(None, description="[ms] constant in TTFT")
    allreduce: Sourced[Positive] | None = Field(None, description="share of the one-way scale-up bandwidth")
    host_link: Sourced[Positive] | None = Field(None, description="share of the one-way host bandwidth that parking reaches")
    prefill_log_sd: Sourced[NonNegative] | None = Field(None, description="spread of ln(measured / predicted), prefill and TTFT")
    decode_log_sd: Sourced[NonNegative] | None = Field(None, description="the same, decode and TPOT")
