"""Exercises of 02_applications/01_decoder_only, first part: who sees whom, and what each family learns from"""

ORDER = ["attention_pattern", "mask_tokens", "corrupt_spans", "shift_labels", "generate_with_cache"]
