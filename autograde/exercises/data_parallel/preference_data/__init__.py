"""Exercises of 03_data_parallel/01_preference_data: votes turned into strengths, labels, and a trained policy."""

ORDER = ["bradley_terry_fit", "judge_agreement", "weighted_vote", "pseudo_label", "dpo_loss"]
