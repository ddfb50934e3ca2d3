"""Which checkpoints have the shape of a catalog model. No shape is guessed: what is in neither table and in no catalog file stays unknown."""

from __future__ import annotations

SAME_SHAPE: dict[str, tuple[str, ...]] = {
    "meta-llama-3.1-8b": ("deepseek-r1-distill-llama-8b", "hermes-3-llama-3.1-8b"),
    "meta-llama-3.1-70b": ("llama-3.3-70b", "deepseek-r1-distill-llama-70b", "llama-3.1-nemotron-70b", "hermes-3-llama-3.1-70b"),
    "llama-30b": ("llama-33b", "vicuna-33b-v1.3"),
    "llama-7b": ("vicuna-7b-v1.3",),
    "llama-13b": ("vicuna-13b-v1.3",),
    "llama-2-7b-hf": ("vicuna-7b-v1.5",),
    "llama-2-13b-hf": ("vicuna-13b-v1.5",),
    "codellama-7b-hf": ("codellama-7b-python",),
    "codellama-13b-hf": ("codellama-13b-python",),
    "codellama-34b-hf": ("codellama-34b-python",),
    "codellama-70b-hf": ("codellama-70b-python",),
    "c4ai-command-r-plus": ("command-r-plus-08-2024",),
    "deepseek-v3": ("deepseek-r1", "deepseek-r1-0528", "deepseek-v3-0324", "deepseek-v3.1", "deepseek-v3.1-terminus"),
    "deepseek-v3.2": ("deepseek-v3.2-exp",),
    "deepseek-v2.5": ("deepseek-v2", "deepseek-coder-v2", "deepseek-v2.5-1210"),
    "deepseek-v2-lite": ("deepseek-coder-v2-lite",),
    "mistral-7b-v0.1": ("openhermes-2.5-mistral-7b", "zephyr-7b-beta", "zephyr-7b-alpha"),
    "mistral-7b-v0.3": ("mistral-7b",),
    "mistral-large-instruct-2407": ("mistral-large-2411",),
    "mistral-nemo-instruct-2407": ("mistral-nemo", "mistral-nemo-12b"),
    "mistral-small-3.1-24b-instruct-2503": ("mistral-small-3.2-24b-2506", "mistral-small-3.2-24b"),
    "phi-3.5-mini-instruct": ("phi-3-mini-128k",),
    "phi-4-mini-instruct": ("phi-4-mini-reasoning",),
    "granite-3.1-2b-instruct": ("granite-3.2-2b", "granite-3.3-2b"),
    "granite-3.1-8b-instruct": ("granite-3.2-8b", "granite-3.3-8b"),
    "yi-34b": ("yi-1.5-34b",),
    "yi-6b": ("yi-1.5-6b",),
    "internlm2-7b": ("internlm2.5-7b",),
    "qwen2.5-0.5b": ("qwen2.5-coder-0.5b",),
    "qwen2.5-3b": ("qwen2.5-coder-3b",),
    "qwen2.5-7b-instruct": ("qwen2.5-coder-7b",),
    "qwen2.5-32b-instruct": ("qwen2.5-coder-32b", "qwq-32b"),
    "qwen2.5-72b-instruct": ("kimi-dev-72b",),
    "qwen3-4b-instruct-2507": ("qwen3-4b-thinking-2507",),
    "qwen3-30b-a3b-instruct-2507": ("qwen3-30b-a3b-thinking-2507", "qwen3-coder-30b-a3b"),
    "qwen3-235b-a22b-instruct-2507": ("qwen3-235b-a22b-thinking-2507",),
    "qwen3.5-27b": ("qwen3.6-27b",),
    "qwen3.5-35b-a3b": ("qwen3.6-35b-a3b",),
    "kimi-k2.6": ("kimi-k2.7-code",),
    "olmo-3-1125-32b": ("olmo-3-32b",),
    "llama-4-scout-17b-16e-instruct": ("llama-4-scout",),
    "llama-4-maverick-17b-128e-instruct": ("llama-4-maverick",),
    "llama-3_3-nemotron-super-49b-v1": ("nemotron-super-49b",),
}
"""Further short names, and other checkpoints with the shape and the stated context of a catalog model."""

OTHER_CONTEXT: dict[str, tuple[str, ...]] = {
    "meta-llama-3-8b": ("llama-3-8b-gradient-1048k", "llama-3-8b-gradient-4194k", "llama-3-8b-gradient-262k"),
    "llama-2-7b-hf": ("vicuna-7b", "longchat-7b-v1.5-32k", "llama-2-7b-32k", "llama-2-7b-80k", "llama-2-7b-64k"),
    "llama-2-13b-hf": ("vicuna-13b", "llama-2-13b-64k", "longchat-13b-16k"),
    "llama-30b": ("vicuna-33b",),
    "codellama-34b-hf": ("wizardcoder-34b", "phind-codellama-34b-v2"),
    "mistral-nemo-instruct-2407": ("pixtral-12b", "pixtral-12b-2409"),
    "mistral-small-3.1-24b-instruct-2503": ("mistral-small-3-24b", "devstral-small-2505", "devstral-small-2507", "magistral-small-2506"),
    "phi-3.5-mini-instruct": ("phi-3-mini",),
    "phi-3-medium-128k-instruct": ("phi-3-medium", "phi-3-medium-4k"),
    "phi-4": ("phi-4-reasoning", "phi-4-reasoning-plus"),
    "granite-3.1-2b-instruct": ("granite-3.0-2b",),
    "granite-3.1-8b-instruct": ("granite-3.0-8b",),
    "gemma-7b": ("codegemma-7b",),
    "yi-6b": ("yi-6b-200k",),
    "smollm2-1.7b": ("smollm-1.7b",),
    "deepseek-v4-flash": ("deepseek-v4-flash-0731",),
    "kimi-vl-a3b-instruct": ("kimi-vl-a3b-thinking-2506", "moonlight-16b-a3b"),
    "kimi-k2-instruct": ("kimi-k2-0905", "kimi-k2-thinking"),
    "glm-4.5": ("glm-4.6", "glm-4.7"),
    "minimax-m2.5": ("minimax-m2.1",),
    "qwen2-1.5b": ("qwen2-vl-2b",),
    "qwen2-7b": ("qwen2-vl-7b",),
    "qwen2-72b": ("qwen2-vl-72b",),
    "qwen2.5-1.5b": ("qwen2.5-coder-1.5b", "qwen2.5-math-1.5b", "deepseek-r1-distill-qwen-1.5b"),
    "qwen2.5-3b": ("qwen2.5-vl-3b",),
    "qwen2.5-7b-instruct": ("qwen2.5-math-7b", "qwen2.5-7b-1m", "qwen2.5-vl-7b", "deepseek-r1-distill-qwen-7b"),
    "qwen2.5-14b": ("qwen2.5-coder-14b", "qwen2.5-14b-1m", "deepseek-r1-distill-qwen-14b"),
    "qwen2.5-32b-instruct": ("qwen2.5-vl-32b", "deepseek-r1-distill-qwen-32b"),
    "qwen2.5-72b-instruct": ("qwen2.5-math-72b", "qwen2.5-vl-72b"),
    "qwen3-0.6b": ("qwen3-reranker-0.6b", "qwen3-embedding-0.6b"),
    "qwen3-4b": ("qwen3-reranker-4b", "qwen3-embedding-4b"),
    "qwen3-8b": ("qwen3-reranker-8b", "qwen3-embedding-8b", "deepseek-r1-0528-qwen3-8b"),
    "qwen3.5-27b": ("qwen3.8-27b",),
}
"""Checkpoints of the same shape that state another context, or none that is known; of models that also see, the language model.

A measurement says how long its requests were, so these names stand for the shape there, and are no answer to how much context a model has.
qwen3.8-27b: a start-up log of vLLM (github mitchross/talos-argocd-proxmox#1995) has the pages, the groups of layers and the states of qwen3.5-27b.
"""

OPEN = frozenset(("command-r", "llama-3.1-nemotron"))
"""Short names that stand for several shapes of one maker."""
