"""Section 03_data_parallel."""
