"""Exercises of 02_applications/07_hallucination: votes, entropies, calibration, sources, graphs."""

ORDER = [
    "token_entropy",
    "self_consistency",
    "semantic_entropy",
    "expected_calibration_error",
    "abstain",
    "groundedness",
    "kg_lookup",
]
