"""Exercises of 01_transformer/01_attention: attention, the causal and the padding mask, several heads."""

ORDER = ["scaled_dot_product_attention", "causal_mask", "padding_mask", "multi_head_attention"]
