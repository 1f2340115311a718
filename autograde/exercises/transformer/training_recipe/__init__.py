"""Exercises of 01_transformer/07_training_recipe: SwiGLU, experts, a schedule, accumulation, clipping, loss scaling."""

ORDER = [
    "swiglu",
    "mixture_of_experts",
    "warmup_cosine_lr",
    "accumulate_gradients",
    "clip_grad_norm",
    "grad_scaler_step",
]
