"""Exercises of 01_transformer/06_efficient_attention: windows, projections, random features, and exact attention"""

ORDER = [
    "sliding_window_mask",
    "grouped_query_attention",
    "online_softmax_attention",
    "linformer_attention",
    "performer_features",
]
