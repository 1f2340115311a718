"""Exercises of 03_data_parallel/07_pipeline_parallel: the cut, four schedules and their bubble, and a step on ranks."""

ORDER = [
    "split_layers",
    "gpipe_schedule",
    "bubble_fraction",
    "one_f_one_b_schedule",
    "interleaved_schedule",
    "pipeline_step",
]
