"""Exercises of 01_transformer/06_efficient_attention: windows, shared heads, latents, features, and exact attention"""

ORDER = [
    "sliding_window_mask",
    "grouped_query_attention",
    "latent_attention",
    "online_softmax_attention",
    "linformer_attention",
    "performer_features",
]
