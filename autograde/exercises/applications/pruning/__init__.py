"""Exercises of 02_applications/14_pruning: small weights, loud inputs, two of four, whole units, tickets."""

ORDER = ["magnitude_prune", "wanda_scores", "two_four_mask", "structured_prune", "lottery_rewind"]
