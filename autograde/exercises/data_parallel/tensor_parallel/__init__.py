"""Exercises of 03_data_parallel/06_tensor_parallel: layers cut over ranks, what each rank holds and what it sends."""

ORDER = [
    "Region",
    "ColumnParallelLinear",
    "RowParallelLinear",
    "TensorParallelMLP",
    "TensorParallelAttention",
    "vocab_parallel_cross_entropy",
    "SequenceParallelMLP",
]
