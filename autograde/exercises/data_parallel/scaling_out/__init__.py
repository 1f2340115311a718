"""Exercises of 03_data_parallel/08_scaling_out: operations, memory, messages, seconds, a search; experts; failures."""

ORDER = [
    "training_flops",
    "memory_per_gpu",
    "bytes_sent",
    "step_time",
    "best_layout",
    "expert_parallel",
    "ring_attention",
    "checkpoint_interval",
]
