"""Exercises of 02_applications/10_gradients: initialization, and gradients by layer (stacks and clipping are in"""

ORDER = ["init_std", "init_network", "gradient_norms_by_layer", "residual_stack", "clip_by_value"]
