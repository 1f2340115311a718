"""Exercises of 01_transformer/05_normalization: LayerNorm, RMSNorm, BatchNorm, and the block around them."""

ORDER = ["layer_norm", "rms_norm", "batch_norm", "pre_norm_block"]
