"""Exercises of 02_applications/14_pruning: single weights, units and heads, 2:4, what inputs say, a ticket rewound."""

ORDER = ["magnitude_prune", "structured_prune", "wanda_scores", "two_four_mask", "lottery_rewind"]
