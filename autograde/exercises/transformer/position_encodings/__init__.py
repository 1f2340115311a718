"""Exercises of 01_transformer/03_position_encodings: sinusoids, a learned table, T5's buckets, ALiBi, distances."""

ORDER = ["sinusoidal_encoding", "add_learned_positions", "relative_position_bucket", "alibi_bias", "relative_scores"]
