"""Section 01_transformer."""
