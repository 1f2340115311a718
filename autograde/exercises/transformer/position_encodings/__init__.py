"""Exercises of 01_transformer/03_position_encodings: sinusoids, learned positions, T5's buckets, ALiBi."""

ORDER = ["sinusoidal_encoding", "add_learned_positions", "relative_position_bucket", "alibi_bias"]
