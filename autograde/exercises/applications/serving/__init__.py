"""Exercises of 02_applications/15_serving: rooflines, the KV cache and its blocks, batching, prefixes, speculation."""

ORDER = [
    "roofline",
    "kv_cache_bytes",
    "fold_batch_norm",
    "append_slots",
    "continuous_batching",
    "cached_prefix",
    "speculative_accept",
]
