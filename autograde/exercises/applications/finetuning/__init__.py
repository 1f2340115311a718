"""Exercises of 02_applications/08_finetuning: labels, packing, LoRA, what is trained, four bits and an adapter."""

ORDER = [
    "build_labels",
    "pack_sequences",
    "LoRALinear",
    "trainable_fraction",
    "nf4_quantize",
    "qlora_forward",
]
