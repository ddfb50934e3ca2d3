"""The throughput model, one quantity a file: KV cache, concurrency, prefill, decode, switching, session."""
