"""Exercises of 01_transformer/09_pretrain_gpt: a tokenizer, batches, the loss, bits per byte, a whole GPT."""

ORDER = ["train_bpe", "get_batch", "cross_entropy", "bits_per_byte", "gpt_forward"]
