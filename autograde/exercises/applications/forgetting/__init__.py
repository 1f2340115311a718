"""Exercises of 02_applications/09_forgetting: freezing, pulling back, replay, the old self as a teacher, averages."""

ORDER = [
    "freeze_layers",
    "gradual_unfreeze",
    "l2_sp_penalty",
    "fisher_diagonal",
    "ewc_penalty",
    "distill_to_old_self",
    "replay_batches",
    "average_models",
]
