"""Exercises of 02_applications/02_sampling: temperature, top-k, top-p, min-p, and the draw."""

ORDER = ["apply_temperature", "top_k_filter", "top_p_filter", "min_p_filter", "sample"]
