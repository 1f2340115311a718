"""Exercises of 01_transformer/04_rope: the angles, the rotation, the scores, and scaling to longer contexts."""

ORDER = ["rope_angles", "apply_rope", "rope_attention_scores", "scale_rope"]
