"""Exercises of 01_transformer/02_encoder_decoder: the feed-forward network, both layers, and greedy decoding."""

ORDER = ["feed_forward", "encoder_layer", "decoder_layer", "greedy_decode"]
