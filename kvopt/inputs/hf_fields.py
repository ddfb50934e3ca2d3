"""The fields of a Hugging Face config.json, read strictly: whole positive numbers within bounds, or a refusal that names the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kvopt.errors import BadInput

TEXT_BLOCKS = ("text_config", "llm_config", "language_config")
"""Where models that also see or hear keep the settings of their language model."""

RENAMES = {
    "n_layer": "num_hidden_layers",
    "n_layers": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_heads": "num_attention_heads",
    "n_head_kv": "num_key_value_heads",
    "num_kv_heads": "num_key_value_heads",
    "num_attention_groups": "num_key_value_heads",
    "n_embd": "hidden_size",
    "d_model": "hidden_size",
    "n_inner": "intermediate_size",
    "ffn_dim": "intermediate_size",
    "n_positions": "max_position_embeddings",
    "max_seq_len": "max_position_embeddings",
    "model_max_length": "max_position_embeddings",
    "attention_head_dim": "head_dim",
    "num_local_experts": "num_experts",
    "n_routed_experts": "num_experts",
    "moe_num_experts": "num_experts",
    "num_experts_per_token": "num_experts_per_tok",
    "experts_per_token": "num_experts_per_tok",
    "top_k_experts": "num_experts_per_tok",
    "moe_top_k": "num_experts_per_tok",
    "num_shared_experts": "n_shared_experts",
    "shared_expert_intermediate_size": "shared_intermediate_size",
    "moe_shared_expert_intermediate_size": "shared_intermediate_size",
    "share_expert_dim": "shared_intermediate_size",
    "share_expert_dims": "shared_intermediate_size",
    "expert_intermediate_size": "moe_intermediate_size",
    "routed_expert_hidden_size": "moe_latent_size",
    "dense_intermediate_size": "intermediate_size_mlp",
    "sliding_window_size": "sliding_window",
    "_sliding_window_pattern": "sliding_window_pattern",
}
"""One name for what families call differently; the name on the right wins where a config has both."""

LIMITS = {"num_hidden_layers": 4096, "hidden_size": 10**6, "num_attention_heads": 10**5, "num_key_value_heads": 10**5, "head_dim": 10**5}
"""Beyond these a number is a mistake; every other field ends at `LIMIT`."""
LIMIT = 10**9


class MissingFields(BadInput):
    """Fields that a rule needs and the config does not have."""

    def __init__(self, names: list[str], why: str) -> None:
        self.names = names
        super().__init__("config.json", ", ".join(names), f"missing, and {why} cannot be read without")


class Fields:
    """A config with the blocks of its language model merged and its fields renamed to one vocabulary."""

    def __init__(self, data: dict[str, Any]) -> None:
        merged = {key: value for key, value in data.items() if key not in TEXT_BLOCKS and not key.endswith("vision_config")}
        for block in TEXT_BLOCKS:
            inner = data.get(block)
            if inner is not None and not isinstance(inner, dict):
                raise BadInput(block, inner, "must hold the fields of the language model")
            merged |= {key: value for key, value in (inner or {}).items() if value is not None or key not in merged}
        for other, name in RENAMES.items():
            if merged.get(name) is None and merged.get(other) is not None:
                merged[name] = merged[other]
        self.data = merged
        self.layout = self.mapping("_kv_layout")
        self.family = str(merged.get("model_type") or self.layout.get("family_formula") or "")

    def default(self, values: dict[str, Any]) -> None:
        """What the family's config class assumes where the file says nothing."""
        for name, value in values.items():
            if not self.has(name):
                self.data[name] = value

    def has(self, name: str) -> bool:
        """Whether the field is there and is not null."""
        return self.data.get(name) is not None

    def get(self, name: str, default: int | None = None, low: int = 1) -> int | None:
        """A whole number of at least `low`, or the default where the field is absent or null."""
        value = self.data.get(name)
        if value is None:
            return default
        return whole(name, value, low)

    def count(self, name: str, default: int = 0) -> int:
        """A whole number that may be 0."""
        value = self.get(name, default, low=0)
        return default if value is None else value

    def need(self, *names: str) -> tuple[int, ...]:
        """Whole positive numbers, all of them there."""
        missing = [name for name in names if not self.has(name)]
        if missing:
            raise MissingFields(missing, f"a {self.family} config" if self.family else "a model")
        return tuple(whole(name, self.data[name], 1) for name in names)

    def one(self, name: str) -> int:
        """One whole positive number that must be there."""
        return self.need(name)[0]

    def flag(self, name: str, default: bool = False) -> bool:
        """A yes or no."""
        value = self.data.get(name)
        if value is not None and value not in (True, False):
            raise BadInput(name, value, "must be true or false")
        return default if value is None else bool(value)

    def word(self, name: str, default: str = "") -> str:
        """A text."""
        return self._of(name, str, "must be a text") or default

    def listed(self, name: str) -> list[Any]:
        """A list, empty where the field is absent; its entries are not looked at."""
        return self._of(name, list, "must be a list") or []

    def mapping(self, name: str) -> dict[str, Any]:
        """A mapping, empty where the field is absent."""
        return self._of(name, dict, "must be a mapping of fields") or {}

    def _of(self, name: str, form: type, allowed: str) -> Any:
        value = self.data.get(name)
        if value is not None and not isinstance(value, form):
            raise BadInput(name, value, allowed)
        return value

    def block(self, name: str) -> Fields:
        """A mapping within the config, as fields of its own."""
        if not self.has(name):
            raise MissingFields([name], f"a {self.family} config")
        return Fields({"model_type": self.family, **self.mapping(name)})

    def per_layer(self, name: str, layers: int) -> list[Any] | None:
        """A list with one entry a layer; entries of multi-token-prediction layers after the last are dropped."""
        value = self.data.get(name)
        if value is None:
            return None
        drafts = self.count("num_nextn_predict_layers")
        if not isinstance(value, list) or not layers <= len(value) <= layers + drafts:
            raise BadInput(
                name, value if not isinstance(value, list) else f"{len(value)} entries", f"must have one entry for each of {layers} layers"
            )
        return value[:layers]


def whole(name: str, value: Any, low: int) -> int:
    """A whole number between `low` and what is plausible for the field."""
    high = LIMITS.get(name, LIMIT)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or not low <= value <= high or value != int(value):
        raise BadInput(name, value, f"must be a whole number from {low} to {high}")
    return int(value)


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a config.json. Raises `BadInput` with the line and column where it is not JSON, or is cut off."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput("model", path, f"cannot be read ({error.__class__.__name__})") from None
    except json.JSONDecodeError as error:
        raise BadInput("model", path.name, f"is not JSON: {error.msg}, line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise BadInput("model", path.name, "is not a config.json: nested too deeply") from None
    if not isinstance(data, dict):
        raise BadInput("model", path.name, "must be a JSON object with the fields of a config.json")
    return data
