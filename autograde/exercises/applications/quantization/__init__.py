"""Exercises of 02_applications/12_quantization: rounding with a scale, 4-bit blocks, GPTQ and AWQ."""

ORDER = [
    "quantize_absmax",
    "quantize_affine",
    "fake_quantize",
    "pack_int4",
    "dequantize_q4_1",
    "gptq_layer",
    "awq_scale",
]
