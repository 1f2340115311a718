"""A02.3: export to ONNX and run in ONNX Runtime or TensorRT, which raises the efficiency *on a GPU*. A small GPT on one
CPU core: what an engine gains on the same weights, for one token and for a prompt, and what its start costs.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from labkit.experiment import Experiment, interval

WIDTH, HIDDEN, LAYERS, HEADS, VOCABULARY, PROMPT, PAIRS = 256, 704, 4, 4, 256, 128, 40

experiment = Experiment(
    claim="A02.3",
    question="How much faster than plain torch are ONNX Runtime and torch.compile on a CPU, start-up counted?",
    arms={
        "torch again": {"engine": "torch", "layers": LAYERS},
        "ONNX Runtime": {"engine": "onnx", "layers": LAYERS},
        "torch.compile": {"engine": "compile", "layers": LAYERS},
        "half of the layers": {"engine": "torch", "layers": LAYERS // 2},
    },
    seeds=range(3),
    shows="half of the layers",
    shows_not="torch again",
    live=("half of the layers", 0),
    within={"decode": 1.0, "prefill": 1.0, "start": 60.0, "saved": 1e6, "apart": 1.0},
)


class GPT(nn.Module):
    """LLaMA's layers with a KV cache as an input and an output: [layers, 2, rows, heads, past, width / heads]."""

    def __init__(self, layers: int):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(layers))
        self.norm = nn.RMSNorm(WIDTH, eps=1e-6)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, ids, past):
        x, kept = self.embed(ids), []
        for i, layer in enumerate(self.layers):
            x, cache = layer(x, past[i])
            kept.append(cache)
        return self.head(self.norm(x)), torch.stack(kept)


class Layer(nn.Module):
    """Attention and a gated MLP, each behind a norm."""

    def __init__(self):
        super().__init__()
        self.before, self.between = nn.RMSNorm(WIDTH, eps=1e-6), nn.RMSNorm(WIDTH, eps=1e-6)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.gate, self.up = nn.Linear(WIDTH, HIDDEN, bias=False), nn.Linear(WIDTH, HIDDEN, bias=False)
        self.down = nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x, past):
        start = past.shape[-2]
        heads = self.qkv(self.before(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        positions = torch.arange(x.shape[1]) + start
        q, k = turned(heads[0], positions), turned(heads[1], positions)
        k, v = torch.cat([past[0], k], -2), torch.cat([past[1], heads[2]], -2)
        seen = torch.arange(k.shape[-2]) <= positions[:, None]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        h = self.between(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h)), torch.stack([k, v])


def turned(x, positions):
    """RoPE: pairs (i, i + d/2) turned by the position."""
    speeds = 10_000.0 ** (torch.arange(0, x.shape[-1], 2) / -x.shape[-1])
    angles = positions[:, None] * speeds
    a, b = x.chunk(2, -1)
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)


def steps(layers: int) -> dict:
    """The inputs of one decoding step and of reading a prompt."""

    def inputs(n, past):
        return torch.randint(VOCABULARY, (1, n)), torch.randn(layers, 2, 1, HEADS, past, WIDTH // HEADS)

    return {"decode": inputs(1, PROMPT), "prefill": inputs(PROMPT, 0)}


def started(model: nn.Module, engine: str):
    """`run(ids, past)` by an engine that starts from the model here and now, with one thread."""
    if engine == "torch":
        return model
    if engine == "compile":
        from torch._inductor import config

        torch.compiler.reset()
        config.force_disable_caches = True  # a cold start, also the second time
        config.compile_threads = 1  # else the compiler is nobody's child, and its seconds are lost
        return torch.compile(model, dynamic=True)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    length, past = torch.export.Dim("length"), torch.export.Dim("past")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path, example = Path(folder) / "gpt.onnx", (torch.zeros(1, 5, dtype=torch.long), steps(LAYERS)["decode"][1])
        shapes, names = ({1: length}, {4: past}), {"input_names": ["ids", "past"], "output_names": ["logits", "cache"]}
        program = torch.onnx.export(model, example, dynamo=True, dynamic_shapes=shapes, verbose=False, **names)
        program.save(str(path))
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(ids, past):
        return [torch.from_numpy(x) for x in session.run(None, {"ids": ids.numpy(), "past": past.numpy()})]

    return run


def seconds(run, inputs) -> float:
    """Of the processor, on one thread: what else the machine does is not counted."""
    start = time.process_time()
    run(*inputs)
    return time.process_time() - start


def spent() -> float:
    """Processor seconds of this process so far, the compiler's that it started among them."""
    return sum(os.times()[:4])


def pairs_of(first, second, inputs, own) -> list[tuple[float, float]]:
    """Seconds of both, again and again, of which each begins in turn."""
    found = []
    for turn in range(PAIRS + 2):
        if turn % 2:
            after, before = seconds(second, own), seconds(first, inputs)
        else:
            before, after = seconds(first, inputs), seconds(second, own)
        found.append((before, after))
    return found[2:]


@experiment.measure
def measure(seed: int, engine: str, layers: int) -> dict:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            plain = GPT(LAYERS).eval()
            other = plain
            if layers < LAYERS:
                other = GPT(layers).eval()
            inputs, own = steps(LAYERS), steps(layers)
            if layers == LAYERS:
                own = inputs
            begin = spent()
            run = started(other, engine)
            outputs = {name: run(*of) for name, of in own.items()}  # a compiler works when it is first called
            start = spent() - begin
            apart = max(float((outputs[name][0] - other(*of)[0]).abs().max()) for name, of in own.items())
            gains, gap = {}, 0.0
            for name, of in inputs.items():
                pairs = pairs_of(plain, run, of, own[name])
                gains[name] = statistics.median(a / b for a, b in pairs)
                gap = statistics.median(a - b for a, b in pairs) if name == "decode" else gap
            return {**gains, "start": start, "saved": 1e6 * gap, "apart": apart}
    finally:
        torch.set_num_threads(threads)


@experiment.conclude
def conclude(found) -> dict:
    onnx = [found.interval("ONNX Runtime", what) for what in ("decode", "prefill")]
    word = "imprecise" if any(each.above(1) for each in onnx) else "unverifiable"
    numbers = {}
    for arm in found.arms:
        name = arm.replace(" ", "_").replace(".", "_").lower()
        for what in ("decode", "prefill"):
            numbers[f"{name}_{what}"] = interval(found.each(arm, what)).text(".1f")
        numbers[f"{name}_start"] = f"{interval(found.each(arm, 'start')).mean:.0f}"
        numbers[f"{name}_apart"] = f"{max(found.each(arm, 'apart')):.0e}"
    half, same = found.interval(experiment.shows, "prefill"), found.interval(experiment.shows_not, "prefill")
    return {
        "verdict": word,
        "controls": {"shows": half.above(1.2), "shows_not": not (same.above(1.2) or same.below(0.8))},
        "numbers": numbers,
    }
