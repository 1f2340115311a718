"""Section 02_applications."""
