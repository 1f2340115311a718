"""Exercises of 03_data_parallel/02_all_reduce: the whole ring and the tree; those of the other modules as well."""

ORDER = ["ring_reduce_scatter", "ring_all_gather", "ring_all_reduce", "tree_broadcast", "all_reduce_cost"]
