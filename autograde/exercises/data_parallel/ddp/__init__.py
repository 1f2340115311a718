"""Exercises of 03_data_parallel/03_ddp: the wrapper DDP, and those that ddp_plan and ddp_averages define."""

ORDER = ["shard_indices", "average_gradients", "assign_buckets", "DDP", "accumulate"]
