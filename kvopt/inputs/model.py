"""What a model is, as far as memory, traffic and work go: the frozen classes behind `kvopt/catalog/models` and any config.json.

Parameter counts are those of the weight matrices; biases, norms and multi-token-prediction layers (below 0.1 % and off by default) are left out.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from kvopt.errors import BadInput
from objectives import types

BYTES_PER_PARAMETER = {
    "bf16": 2.0,
    "fp16": 2.0,
    "fp32": 4.0,
    "fp8": 1.0,
    "int8": 1.0,
    "int4": 0.52,  # 4 bits, scales and zeros of groups of 128, as logged by engines
    "w4": 0.52,
    "int4-g32": 0.5625,  # 4 bits and a 16-bit scale for each 32
    "mxfp4": 0.53125,  # 4 bits and an 8-bit scale for each 32
    "nvfp4": 0.5625,  # 4 bits and an 8-bit scale for each 16
    "q8_0": 1.0625,  # GGUF: 8 bits and a 16-bit scale for each 32
    "q4_0": 0.5625,  # GGUF: 4 bits and a 16-bit scale for each 32
    "q4_k_m": 0.606,  # GGUF: 4.85 bits, a mix of 4- and 6-bit blocks (llama.cpp, tools/quantize/README.md: Llama-3.1-8B)
}
"""Bytes per parameter of a linear layer, scales included, by weight format."""

BYTES_PER_EMBEDDING = 2.0  # quantised checkpoints keep embeddings and output head in 16 bit

Count = int | None


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LayerKind(_Frozen):
    """One kind of layer: what it caches per token, what it keeps per sequence, and what attending costs."""

    query_heads: int = Field(default=0, ge=0, description="query heads; 0 in layers without attention")
    kv_heads: int = Field(default=0, ge=0, description="KV heads cached and read; 1 for a latent (MLA), 0 in layers without attention")
    key_width: int = Field(default=0, ge=0, description="elements of K per token and KV head (MLA: latent + rope)")
    value_width: int = Field(default=0, ge=0, description="elements of V per token and KV head; 0 where K and V are one vector")
    window: int = Field(default=0, ge=0, description="local entries held at most [tokens]; 0 where there is no window")
    global_rate: float = Field(
        default=0.0, ge=0, le=1, description="global entries per token of context: 1 full attention, 0 window alone, 1/4 compressed"
    )
    select: Count = Field(default=None, ge=1, description="global entries read per query at most; absent: all")
    index_width: int = Field(default=0, ge=0, description="elements of an index key per token (sparse attention)")
    index_rate: float = Field(default=0.0, ge=0, le=1, description="index keys per token of context")
    index_flop: float = Field(default=0.0, ge=0, description="FLOP per query token and index key scored: 2 * index heads * index width")
    attention_flop: float = Field(default=0.0, ge=0, description="FLOP per query token and entry attended in prefill: 2 * query heads * (dk + dv)")
    decode_flop: float = Field(default=0.0, ge=0, description="the same while decoding (absorbed MLA: 2 * query heads * (2 * latent + rope))")
    state_bytes: float = Field(
        default=0.0, ge=0, description="state per sequence [bytes], recurrent part as the config says (else 32 bit), convolution 16 bit"
    )
    stores: bool = Field(default=True, description="false where the layer reads the cache of another layer instead of its own")

    @property
    def caches(self) -> bool:
        """Whether the layer has attention or a state: a row in `Architecture`."""
        return self.kv_heads > 0 or self.state_bytes > 0


class Parameters(_Frozen):
    """Parameter counts; absent where the config does not hold enough to compute them."""

    total: Count = Field(default=None, ge=1, description="all stored parameters, embeddings included")
    embedding: Count = Field(default=None, ge=0, description="input embedding and output head as stored: once where they are tied")
    head: Count = Field(default=None, ge=0, description="output head alone: vocabulary * hidden, tied or not")
    expert: Count = Field(default=None, ge=0, description="in routed experts, all of them")
    active: Count = Field(default=None, ge=1, description="touched by one token, without input embedding and output head")


class ModelSpec(_Frozen):
    """A model: names, sizes, its kinds of layer and the order they come in."""

    id: str = Field(description="catalog id: the Hugging Face name in lower case, without owner")
    name: str = Field(description="Hugging Face name, with owner where known")
    aliases: tuple[str, ...] = Field(default=(), description="other names people use, other checkpoints of the same shape among them")
    family: str = Field(description="model_type of the config, or the formula that its KV fields are read by")
    max_context: Count = Field(default=None, ge=1, description="longest context the config states [tokens]")
    hidden: Count = Field(default=None, ge=1, description="model width")
    intermediate: Count = Field(
        default=None, ge=1, description="widest feed-forward width that one token passes (experts per token * expert width + shared)"
    )
    vocabulary: Count = Field(default=None, ge=1)
    query_heads: int = Field(ge=1, description="most query heads of any layer")
    layers: int = Field(ge=1, description="all layers, those without attention too")
    kinds: dict[str, LayerKind] = Field(description="the kinds of layer by name")
    order: tuple[tuple[str, int], ...] = Field(description="(kind, how many in a row), from the first layer to the last")
    parameters: Parameters = Parameters()
    experts: Count = Field(default=None, ge=1, description="routed experts per layer; 1 in a dense model; absent: not known")
    experts_per_token: Count = Field(default=None, ge=1)
    weight_format: str = Field(default="bf16", description="format of the linear layers: bf16, fp8, int8, int4, int4-g32, mxfp4, nvfp4")
    other_format: str | None = Field(
        default=None, description="format of the linear layers that are not in weight_format (attention beside 4-bit experts)"
    )
    other_parameters: Count = Field(default=None, ge=0, description="how many parameters are in other_format")
    tag: Literal["measured", "published", "derived", "assumed"] = Field(description="how far the numbers can be trusted")
    completeness: str = Field(description="how much of the config.json the source holds")
    source: str = Field(description="where the numbers come from")
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> ModelSpec:
        strange = {kind for kind, _ in self.order} ^ set(self.kinds)
        if strange:
            raise ValueError(f"kinds and order must name the same kinds of layer, not {', '.join(sorted(strange))}")
        if any(repeat < 1 for _, repeat in self.order) or sum(repeat for _, repeat in self.order) != self.layers:
            raise ValueError(f"order must hold {self.layers} layers")
        if not any(kind.caches for kind in self.kinds.values()):
            raise ValueError("no layer has attention or a state")
        for label in (self.weight_format, self.other_format):
            if label is not None and label not in BYTES_PER_PARAMETER:
                raise ValueError(f"weight format {label} is not one of {', '.join(BYTES_PER_PARAMETER)}")
        return self

    @property
    def routed(self) -> bool:
        """Whether it routes tokens to experts."""
        return (self.experts or 1) > 1

    def architecture(self, per_layer: bool = False) -> types.Architecture:
        """The pytree the objectives take, with float64 leaves; NaN where the config does not say.

        Identical layers are merged into groups. `per_layer` gives each layer with attention or state a row of its own in layer order,
        and each of its KV heads a column of 0 or 1.
        """
        if per_layer:
            rows = [(self.kinds[name], 1) for name, repeat in self.order for _ in range(repeat) if self.kinds[name].caches]
        else:
            rows = [(kind, sum(repeat for other, repeat in self.order if other == name)) for name, kind in self.kinds.items() if kind.caches]
        kinds = [kind for kind, _ in rows]
        heads = column([kind.kv_heads for kind in kinds])
        return types.Architecture(
            layer_count=column([count for _, count in rows]),
            head_count=(np.arange(heads.max()) < heads).astype(np.float64) if per_layer else heads,
            stores=column([kind.stores for kind in kinds]),
            key_width=column([kind.key_width for kind in kinds]),
            value_width=column([kind.value_width for kind in kinds]),
            window=column([kind.window for kind in kinds]),
            global_rate=column([kind.global_rate for kind in kinds]),
            select=column([math.inf if kind.select is None else kind.select for kind in kinds]),
            index_width=column([kind.index_width for kind in kinds]),
            index_rate=column([kind.index_rate for kind in kinds]),
            attention_flop=column([kind.attention_flop for kind in kinds]),
            decode_flop=column([kind.decode_flop for kind in kinds]),
            index_flop=column([kind.index_flop for kind in kinds]),
            state_bytes=column([kind.state_bytes for kind in kinds]),
            layers=number(self.layers),
            hidden=number(self.hidden),
            intermediate=number(self.intermediate),
            vocabulary=number(self.vocabulary),
            query_heads=number(self.query_heads),
            parameters=number(self.parameters.total),
            embedding_parameters=number(self.parameters.embedding),
            head_parameters=number(self.parameters.head),
            expert_parameters=number(self.parameters.expert),
            active_parameters=number(self.parameters.active),
            experts=number(self.experts),
            experts_per_token=number(self.experts_per_token),
        )

    def checkpoint(self, format: str | None = None) -> types.Checkpoint:
        """How the weights are stored: in the model's own formats, or every linear layer in `format`.

        Embeddings and output head stay in 16 bit; `retained` is 1, since what weight quantisation costs is not the model's to say.
        """
        if format is not None and format not in BYTES_PER_PARAMETER:
            raise BadInput("weight format", format, f"one of {', '.join(BYTES_PER_PARAMETER)}")
        linear = BYTES_PER_PARAMETER[format or self.weight_format]
        total, embedding = self.parameters.total, self.parameters.embedding
        if format is None and self.other_format and self.other_parameters and total is not None and embedding is not None:
            share = self.other_parameters / (total - embedding)
            linear = (1 - share) * linear + share * BYTES_PER_PARAMETER[self.other_format]
        embeddings = max(BYTES_PER_EMBEDDING, linear)
        return types.Checkpoint(bytes_per_parameter=number(linear), bytes_per_embedding=number(embeddings), retained=number(1))

    def to_yaml(self) -> str:
        """The text of the catalog file: what differs from the defaults, one kind of layer a line."""
        data = self.model_dump(mode="json", exclude_defaults=True)
        data["kinds"] = {name: _Line(kind) for name, kind in data["kinds"].items()}
        data |= {name: _Line(data[name]) for name in ("parameters",) if name in data} | {
            name: _Row(data[name]) for name in ("aliases",) if name in data
        }
        return "".join(_order(self.order) if name == "order" else _dump({name: value}) for name, value in data.items())


def number(value: float | None) -> Any:
    """A float64 scalar; NaN for what is not known."""
    return np.float64(math.nan if value is None else value)


def column(values: Sequence[float]) -> Any:
    """A float64 array `(layers, 1)`."""
    return np.asarray(values, dtype=np.float64)[:, None]


def _order(order: Sequence[tuple[str, int]]) -> str:
    """The runs of layers, wrapped between runs and never within one."""
    return textwrap.fill(f"order: [{', '.join(f'[{kind},{repeat}]' for kind, repeat in order)}]", 150, subsequent_indent="  ") + "\n"


def _dump(data: dict[str, Any]) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=150, allow_unicode=True)


class _Line(dict[str, Any]):
    """A mapping written on one line."""


class _Row(list[Any]):
    """A list written on one line."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Line, lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data.items(), flow_style=True))
_Dumper.add_representer(_Row, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True))
