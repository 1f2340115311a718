"""Exercises of 02_applications/13_distillation: soft targets, losses, and data by a teacher."""

ORDER = [
    "soft_targets",
    "distillation_loss",
    "feature_loss",
    "sequence_distillation_data",
    "generalized_jsd",
    "on_policy_loss",
]
