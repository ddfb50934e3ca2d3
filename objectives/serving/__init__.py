"""The throughput model, one quantity a file: KV cache, concurrency, prefill, decode, switching, session.

All of them take a `System` (what is served, on what, to whom), a `Plan` and the `Effects` of its methods, and a `Schedule`. kvopt reads a system from names;
the default scenario is the paper's, at `peak` fidelity its theory. Here Yi-34B uncompressed, 50,000 tokens, on one A100 of 80 GB:

    >>> import jax
    >>> from kvopt.inputs.choice import MethodChoice
    >>> from kvopt.inputs.scenario import Scenario
    >>> from kvopt.problem import resolve
    >>> from objectives.serving.concurrency import concurrency
    >>> from objectives.serving.kv_cache import cache, session_bytes
    >>> from objectives.serving.prefill import prefill_s
    >>> from objectives.types import Plan, Schedule
    >>> system, effects = resolve(Scenario.of(fidelity="peak")).system(), MethodChoice().effects()
    >>> plan = Plan(**dict.fromkeys(Plan.__dataclass_fields__, 1.0) | {"key_bits": 16.0, "value_bits": 16.0})
    >>> one = dict.fromkeys(("tensor_parallel", "pipeline_parallel", "replicas", "context_parallel", "attention_data_parallel", "batch"), 1.0)
    >>> schedule = Schedule(**dict.fromkeys(Schedule.__dataclass_fields__, 0.0) | one | {"chunk": 50_000.0})
    >>> @jax.jit
    ... def figures(tokens):
    ...     bytes_ = session_bytes(system.architecture, effects, cache(system.architecture, plan, effects), tokens)
    ...     return bytes_, concurrency(system, plan, effects, schedule, tokens), prefill_s(system, plan, effects, schedule, tokens)
    >>> "{:,.0f} bytes of cache, {:.2f} sessions in memory, {:.1f} s of prefill".format(*figures(50_000.0))
    '12,288,000,000 bytes of cache, 1.39 sessions in memory, 17.6 s of prefill'

How many sessions an hour that makes, how long each waits and who is where says `objectives.serving.session.serve`.
"""
