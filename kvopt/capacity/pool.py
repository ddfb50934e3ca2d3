"""The pool for caches on one rank: what the engine may use, less what it takes first, and what it charges to nobody.

vLLM: share x visible memory - weights - peak of one dummy step - non-torch memory (- CUDA graphs from 0.21). The step is one pass of the longest
prompts, then the sampler over `max_num_seqs` rows: the larger of the two counts. SGLang: share x memory free before loading - weights. TensorRT-LLM:
share x memory free once weights and buffers are there.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvopt.capacity.deployment import GIB, Deployment
from kvopt.capacity.weights import Stage, expert_width, stages

EXPERT_CHUNK = 32768  # tokens that fused experts take at once (vLLM: VLLM_FUSED_MOE_CHUNK_SIZE)
WARM_UP_BYTES = 4  # per sequence and vocabulary entry of the sampler's warm-up: 1024 x 201,088 x 4 B (gpt-oss-20b, vLLM 0.19)
LEAST_LEFT = 1 / 3  # of the room outside the budget: gpt-oss-20b at 0.95 had less and died, at 0.90 more (vLLM 0.19, H100)
EXPERT_GRAPHS = 2.5  # graphs of mixtures of experts over those of dense models: 0.03-0.08 and 0.02-0.03 GiB a layer (vLLM 0.19, H100)


@dataclass(frozen=True)
class Ledger:
    """[bytes] of one rank, by what takes them. `pool` may be negative: then the weights do not fit."""

    visible: float
    usable: float
    weights: float
    activation: float
    non_torch: float
    graphs: float
    pool: float

    @property
    def reserve(self) -> float:
        """All that is neither weights nor caches."""
        return self.activation + self.non_torch + self.graphs


def ledger(deployment: Deployment) -> Ledger:
    """The fullest rank's memory: that of the pipeline stage that is left least."""
    return min((_stage_ledger(deployment, stage) for stage in stages(deployment)), key=lambda found: found.pool)


def _stage_ledger(deployment: Deployment, stage: Stage) -> Ledger:
    generation, share, visible = deployment.generation, deployment.utilisation, deployment.visible_bytes
    outside = non_torch(deployment)
    graphs = captured(deployment, generation.graphs_gib.value * stage.layers / 64)
    activation = peak(deployment, sampler=stage.last)
    if generation.rule == "profiled":
        usable = share * visible
        pool = usable - stage.bytes - activation - outside - graphs
    elif generation.rule == "static":  # free after loading - free before x (1 - share)
        usable, activation = share * (visible - generation.context_gib.value * GIB), 0.0
        pool = usable - stage.bytes - outside - graphs
    else:  # share x free after loading: what is taken first costs only its share
        usable = visible
        pool = share * (visible - stage.bytes - activation - outside - graphs)
    return Ledger(visible, usable, stage.bytes, activation, outside, graphs, pool)


def captured(deployment: Deployment, whole_gib: float) -> float:
    """[bytes] of CUDA graphs, of `whole_gib` where steps of 256 sequences and more are captured."""
    return 0.0 if deployment.eager else whole_gib * GIB * min(1.0, deployment.max_sequences / 256)


def non_torch(deployment: Deployment) -> float:
    """[bytes] of one rank that PyTorch did not allocate: one rank's own, and what it takes to talk to the others."""
    generation = deployment.generation
    total = generation.single_gib.value
    if deployment.tp * deployment.dp > 1:
        total += generation.linked_gib.value if deployment.linked else generation.unlinked_gib.value
    if deployment.hosts:
        total += generation.node_gib.value
    return total * GIB


def peak(deployment: Deployment, sampler: bool = True) -> float:
    """[bytes] that activations take at the peak of the profiled step: the larger of its two passes, or the encoders' own."""
    passes = [token_pass(deployment) + (experts_held(deployment) if not sampler else 0.0)]
    cuts_prompts_v0 = deployment.generation.rule == "profiled" and not deployment.generation.hybrid and deployment.chunked
    if sampler and not cuts_prompts_v0:  # V0: a prompt that is cut samples nothing in the dummy step (logs of 0.19-0.22 GiB)
        passes.append(sampler_pass(deployment) + experts_held(deployment))
    vision = deployment.tower.profile_gib.value * GIB if deployment.tower and deployment.generation.rule == "profiled" else 0.0
    return max(passes) + vision


def sampler_pass(deployment: Deployment) -> float:
    """[bytes]: logits, their 32-bit copy, probabilities and noise (and, before 0.17, the sorted ones) for every sequence, and one step's hidden states."""
    generation, model = deployment.generation, deployment.model
    entry = generation.sampler_bytes.value + (deployment.bytes_per_element - 2)
    logits = entry * deployment.max_sequences * (model.vocabulary or 0)
    return logits + generation.sampler_base_gib.value * GIB + deployment.chunk * (model.hidden or 0) * deployment.bytes_per_element


def token_pass(deployment: Deployment) -> float:
    """[bytes]: the widest layer over one step, 3 x feed-forward / tp + 3 x hidden values per token, and for experts their k inputs and outputs.

    Llama-3.1-8B: 110.6 kB per token, the slope of two logs (vllm#10517). A group holds the all-reduced hidden states beside those that it reduced.
    """
    model, tp = deployment.model, deployment.tp
    hidden, width = model.hidden or 0, model.intermediate or 0
    shared = (4 if tp > 1 else 3) * hidden
    values = deployment.chunk * (3 * width / tp + shared)
    if model.routed:
        tokens = min(deployment.chunk * deployment.dp, EXPERT_CHUNK)
        routed = model.experts_per_token or 1
        values = max(values, deployment.chunk * shared + tokens * routed * (3 * expert_width(model) / tp + hidden))
    return deployment.generation.token_pass.value * deployment.bytes_per_element * values


def experts_held(deployment: Deployment) -> float:
    """[bytes] of the fused experts' two workspaces, which vLLM keeps from 0.17 on: k x (max(2 N / tp, hidden) + max(N / tp, hidden)) values per token.

    DeepSeek-V2-Lite and Qwen1.5-MoE on one H100: 0.45 and 0.31 GiB above the sampler's pass. MXFP4 kernels have none.
    """
    model = deployment.model
    if not model.routed or deployment.weights == "mxfp4":
        return 0.0
    hidden, inner = model.hidden or 0, expert_width(model) / deployment.tp
    per_token = (model.experts_per_token or 1) * (max(2 * inner, hidden) + max(inner, hidden))
    tokens = min(deployment.chunk * deployment.dp, EXPERT_CHUNK)
    return deployment.generation.expert_scratch.value * deployment.bytes_per_element * tokens * per_token


@dataclass(frozen=True)
class Outside:
    """[bytes] of one rank outside the engine's budget: a printed pool is not yet a running server."""

    room: float  # (1 - share) x visible memory
    context: float
    graphs: float
    warm_up: float

    @property
    def left(self) -> float:
        """What stays free; servers that had little have died after printing their pool."""
        return self.room - self.context - self.graphs - self.warm_up

    @property
    def warning(self) -> str | None:
        """One line where little is left."""
        if self.left >= LEAST_LEFT * self.room:
            return None
        parts = f"CUDA context {self.context / GIB:.1f}, graphs {self.graphs / GIB:.1f}, sampler warm-up {self.warm_up / GIB:.1f}"
        return f"a printed pool is not yet a running server: {self.room / GIB:.1f} GiB outside the budget must hold {parts}; {self.left / GIB:.1f} GiB left"


def outside(deployment: Deployment) -> Outside | None:
    """The second check, for engines whose budget leaves something out; None where the share is of free memory."""
    generation = deployment.generation
    if generation.rule == "free":
        return None
    joined = deployment.tp * deployment.pp * deployment.dp > 1 and deployment.linked
    experts = EXPERT_GRAPHS if deployment.model.routed else 1.0
    layers = deployment.model.layers / deployment.pp
    return Outside(
        room=(1 - deployment.utilisation) * deployment.visible_bytes,
        context=(generation.group_context_gib if joined else generation.context_gib).value * GIB,
        graphs=captured(deployment, generation.graphs_outside_gib.value * experts * layers / 64),
        warm_up=float(WARM_UP_BYTES * deployment.max_sequences * (deployment.model.vocabulary or 0)),
    )
