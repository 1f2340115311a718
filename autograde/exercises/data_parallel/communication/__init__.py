"""Exercises of 03_data_parallel/04_communication: fewer bytes, fewer rounds, and who waits for whom."""

ORDER = [
    "topk_average",
    "powersgd_round",
    "quantize_gradient",
    "diloco_step",
    "bucket_timeline",
    "balance_work",
]
