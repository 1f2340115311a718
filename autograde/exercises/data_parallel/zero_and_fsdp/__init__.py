"""Exercises of 03_data_parallel/05_zero_and_fsdp: the bytes, the cut, ZeRO-1's step, ZeRO-2's hooks, a unit of FSDP."""

ORDER = ["zero_memory", "shard_flat", "zero1_step", "zero2_hooks", "FSDP"]
