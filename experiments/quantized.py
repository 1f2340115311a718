"""The real model with its weights stored in other formats, and its surprise at real text.

Every format is made, not imitated: `encode` gives the tensors that would be stored, they are written to a file whose
bytes are counted, and the model runs on what `decode` reads back. The 210 matrices of the 30 layers change; the
embedding, which is the output layer as well, is kept in 8-bit blocks below 16 bits, as the shipped file has it.

The shipped file holds these matrices in 4-bit blocks (Q4_1) already. What is called fp32 here is what those blocks
stand for: nobody here has the weights from before.
"""

import functools
import math
import pydoc_data.topics
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F

from labkit import minilm, shakespeare, smollm
from labkit.experiment import interval

LENGTH = 192  # tokens of a passage
PLAYS, MANUAL = 12, 8  # passages of each text
PAIRS = 200  # for the sentence encoder
CALIBRATION = 6  # passages of twice the length, from the other half of the same texts

NF4 = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
])  # fmt: skip
E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
E2M1 = torch.cat([E2M1, -E2M1])


@functools.cache
def loaded():
    """The model and its tokenizer, in float32."""
    return smollm()


@functools.cache
def originals():
    """The weights of the layers' matrices by name, as they came."""
    model, _ = loaded()
    return {name: layer.weight.detach().clone() for name, layer in matrices(model)}


def matrices(model):
    """(name, module) of the matrices that are quantized."""
    return [(name, layer) for name, layer in model.model.named_modules() if isinstance(layer, torch.nn.Linear)]


def restore():
    """Give the model the weights it came with."""
    for name, layer in matrices(loaded()[0]):
        layer.weight.data = originals()[name].clone()


def cut(text, count, length):
    """`count` passages of `length` tokens, evenly spread over the text: [count, length]."""
    _, tokenizer = loaded()
    step = len(text) // count
    return torch.tensor([tokenizer(text[i * step : i * step + 12 * length]).input_ids[:length] for i in range(count)])


@functools.cache
def half(what, second):
    """Half of the plays of Shakespeare, or of the manual of Python that comes with it."""
    text = (
        "\n".join(text for _, text in sorted(pydoc_data.topics.topics.items())) if what == "manual" else shakespeare()
    )
    return text[len(text) // 2 :] if second else text[: len(text) // 2]


@functools.cache
def passages():
    """What is judged: PLAYS passages of Shakespeare, then MANUAL of the manual: [20, LENGTH]."""
    return torch.cat([cut(half("plays", True), PLAYS, LENGTH), cut(half("manual", True), MANUAL, LENGTH)])


@functools.cache
def calibration(what="plays"):
    """What GPTQ and AWQ look at: passages of the first halves, or random tokens: [CALIBRATION, 2 * LENGTH]."""
    if what == "random tokens":
        return torch.randint(1000, 40_000, (CALIBRATION, 2 * LENGTH), generator=torch.Generator().manual_seed(0))
    return cut(half(what, False), CALIBRATION, 2 * LENGTH)


@torch.inference_mode()
def surprise(ids):
    """Nats a token of each passage: [passages]."""
    model, _ = loaded()
    nats = []
    for some in ids.split(4):
        logits = model(some).logits[:, :-1].float()
        nats.append(F.cross_entropy(logits.mT, some[:, 1:], reduction="none").mean(1))
    return torch.cat(nats)


def packed(codes, bits):
    """Whole numbers from 0 to 2**bits - 1, bit after bit, eight to a byte."""
    each = (codes.reshape(-1, 1).to(torch.int32) >> torch.arange(bits, dtype=torch.int32)) & 1
    each = F.pad(each.reshape(-1), (0, -each.numel() % 8)).reshape(-1, 8)
    return (each << torch.arange(8, dtype=torch.int32)).sum(-1).to(torch.uint8)


def unpacked(stored, bits, shape):
    """What `packed` was given, as int64."""
    each = (stored.reshape(-1, 1).to(torch.int32) >> torch.arange(8, dtype=torch.int32)) & 1
    each = each.reshape(-1)[: math.prod(shape) * bits].reshape(-1, bits)
    return (each << torch.arange(bits, dtype=torch.int32)).sum(-1).reshape(shape).long()


def grouped(w, group):
    """[blocks, size]: the whole matrix as one block, its rows, or groups of a row."""
    return w.reshape({"tensor": (1, -1), "row": w.shape}.get(group) or (-1, group))


class Integer:
    """Whole numbers with a scale in float16 for each block, by its largest number; `affine` has a least one as well."""

    def __init__(self, bits, group, affine=False):
        self.bits, self.group, self.affine = bits, group, affine
        self.most = 2**bits - 1 if affine else 2 ** (bits - 1) - 1

    def grid(self, w):
        """(scale, zero) of each block, as stored: what code 0 stands for is `zero`."""
        blocks = grouped(w, self.group)
        low = blocks.amin(-1, keepdim=True)
        if self.affine:
            return ((blocks.amax(-1, keepdim=True) - low) / self.most).half(), low.half()
        return (blocks.abs().amax(-1, keepdim=True) / self.most).half(), torch.zeros_like(low).half()

    def codes(self, w, scale, zero):
        """The nearest codes, from 0 on."""
        scale, zero = scale.float(), zero.float()
        blocks = (grouped(w, self.group) - zero) / torch.where(scale == 0, 1, scale)
        if self.affine:
            return blocks.round().clamp(0, self.most)
        return blocks.round().clamp(-self.most, self.most) + self.most

    def encode(self, w):
        scale, zero = self.grid(w)
        return self.stored(self.codes(w, scale, zero), scale, zero)

    def rounded(self, w):
        """What `decode` gives back of `encode(w)`, in less time. Not for `affine`."""
        scale, zero = self.grid(w)
        return ((self.codes(w, scale, zero) - self.most) * scale.float()).reshape(w.shape)

    def stored(self, codes, scale, zero):
        kept = {"codes": packed(codes, self.bits), "scale": scale}
        return kept | ({"zero": zero} if self.affine else {})

    def decode(self, kept, shape):
        codes = unpacked(kept["codes"], self.bits, (math.prod(shape),)).float()
        blocks = codes.reshape(len(kept["scale"]), -1)
        if not self.affine:
            return ((blocks - self.most) * kept["scale"].float()).reshape(shape)
        return (blocks * kept["scale"].float() + kept["zero"].float()).reshape(shape)


class Cast:
    """Numbers of a narrower type; where it is 8 bits wide with a scale, so that the largest is 448."""

    def __init__(self, dtype, group=None):
        self.dtype, self.group = dtype, group

    def encode(self, w):
        if self.group is None:
            return {"values": w.to(self.dtype)}
        blocks = grouped(w, self.group)
        scale = blocks.abs().amax(-1, keepdim=True) / torch.finfo(self.dtype).max
        return {"values": (blocks / scale).to(self.dtype), "scale": scale}

    def decode(self, kept, shape):
        return (kept["values"].float() * kept.get("scale", torch.ones(()))).reshape(shape)


class Table:
    """Four bits that point into a table of 16 values. `scales` says how a block's scale is stored."""

    def __init__(self, table, group, scales):
        self.table, self.group, self.scales = table, group, scales

    def encode(self, w):
        blocks = grouped(w, self.group)
        scale = blocks.abs().amax(-1, keepdim=True) / self.table.max()
        kept = {}
        if self.scales == "power of two":  # MXFP4: the exponent alone, so that the largest may be cut
            scale = torch.exp2(torch.floor(torch.log2(scale * self.table.max())) - 2)
            kept["scale"] = (scale.log2() + 127).to(torch.uint8)
        elif self.scales == "fp8":  # NVFP4: fp8 for a block, float32 for the matrix
            kept["whole"] = scale.amax() / 448
            kept["scale"] = (scale / kept["whole"]).to(torch.float8_e4m3fn)
            scale = kept["scale"].float() * kept["whole"]
        else:
            kept["scale"] = scale
        order = self.table.sort()
        between = (order.values[1:] + order.values[:-1]) / 2
        codes = order.indices[torch.bucketize(blocks / torch.where(scale == 0, 1, scale), between)]
        return kept | {"codes": packed(codes, 4)}

    def decode(self, kept, shape):
        values = self.table[unpacked(kept["codes"], 4, (len(kept["scale"]), self.group))]
        if self.scales == "power of two":
            return (values * torch.exp2(kept["scale"].float() - 127)).reshape(shape)
        return (values * kept["scale"].float() * kept.get("whole", torch.ones(()))).reshape(shape)


FORMATS = {
    "fp32": Cast(torch.float32),
    "bf16": Cast(torch.bfloat16),
    "fp16": Cast(torch.float16),
    "fp8, a tensor": Cast(torch.float8_e4m3fn, "tensor"),
    "fp8, a row": Cast(torch.float8_e4m3fn, "row"),
    "int8, a tensor": Integer(8, "tensor"),
    "int8, a row": Integer(8, "row"),
    "int4, a tensor": Integer(4, "tensor"),
    "int4, a row": Integer(4, "row"),
    "int4, groups of 64": Integer(4, 64),
    "int4, groups of 32": Integer(4, 32),
    "int3, groups of 64": Integer(3, 64),
    "Q4_1 again": Integer(4, 32, affine=True),
    "NF4": Table(NF4, 64, "float32"),
    "MXFP4": Table(E2M1, 32, "power of two"),
    "NVFP4": Table(E2M1, 16, "fp8"),
}
WIDE = {"fp32", "bf16", "fp16"}


def columnwise(w, hessian, scale, most):
    """GPTQ: whole numbers for w, column after column, each error made good by the columns that follow. [out, in]."""
    hessian = hessian.double()
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True).float()
    w, scale, codes = w.clone(), scale.expand_as(w), torch.empty_like(w)
    for start in range(0, w.shape[1], 128):
        stop = min(start + 128, w.shape[1])
        errors = torch.empty(len(w), stop - start)
        for j in range(start, stop):
            codes[:, j] = (w[:, j] / scale[:, j]).round().clamp(-most, most)
            error = (w[:, j] - codes[:, j] * scale[:, j]) / factor[j, j]
            w[:, j:stop] -= error[:, None] * factor[j, j:stop]
            errors[:, j - start] = error
        w[:, stop:] -= errors @ factor[start:stop, stop:]
    return codes


def importance(hessian, mean, w, form):
    """AWQ: the factor of each input channel under which rounding harms the layer's output least, and its exponent."""
    best = None
    for alpha in (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75):
        s = mean.clamp(min=1e-4) ** alpha
        s = (s / (s.max() * s.min()).sqrt()).half().float()
        wrong = form.rounded(w * s) / s - w
        loss = ((wrong @ hessian) * wrong).sum().item()
        if best is None or loss < best[0]:
            best = loss, alpha, s
    return best


@torch.inference_mode()
def calibrated(method, form, what="plays"):
    """What is stored of every matrix by GPTQ or AWQ: layer after layer, each sees what those before it give by then."""
    model, _ = loaded()
    ids = calibration(what)
    hidden = model.get_input_embeddings()(ids)
    rotary = model.model.rotary_emb(hidden, torch.arange(ids.shape[1])[None])
    stored, exponents = {}, []
    for number, block in enumerate(model.model.layers):
        seen, watching = {}, []
        for name, layer in block.named_modules():
            if isinstance(layer, torch.nn.Linear):
                # Called before the next turn of the outer loop, so that it is this turn's `seen`.
                keep = functools.partial(lambda name, _, given: seen.update({name: given[0].flatten(0, -2)}), name)  # noqa: B023
                watching.append(layer.register_forward_pre_hook(keep))
        block(hidden, position_embeddings=rotary, attention_mask=None)
        for watch in watching:
            watch.remove()
        for name, x in seen.items():
            layer, hessian = block.get_submodule(name), x.T @ x
            w = layer.weight.data
            if method == "GPTQ":
                scale, zero = form.grid(w)
                each = scale.float().expand(-1, w.numel() // len(scale)).reshape(w.shape)
                codes = columnwise(w, hessian, torch.where(each == 0, 1, each), form.most)
                kept = form.stored(codes + form.most, scale, zero)
                layer.weight.data = form.decode(kept, w.shape)
            else:
                _, alpha, s = importance(hessian, x.abs().mean(0), w, form)
                kept = form.encode(w * s) | {"channels": s.half()}
                layer.weight.data = form.decode(kept, w.shape) / s
                exponents.append(alpha)
            stored[f"layers.{number}.{name}"] = kept
        hidden = block(hidden, position_embeddings=rotary, attention_mask=None)
    return stored, exponents


def size(stored, wide=None):
    """Bytes of a file with all weights of the model: matrices as stored, the embedding, and the norms in float32."""
    from safetensors.torch import save_file

    model, _ = loaded()
    rest = {name: value for name, value in model.state_dict().items() if "norm" in name}
    embedding = model.get_input_embeddings().weight.data
    kept = Cast(wide).encode(embedding) if wide else Integer(8, 32).encode(embedding)
    flat = {f"{name}.{part}": value for name, parts in stored.items() for part, value in parts.items()}
    flat |= rest | {f"embedding.{part}": value for part, value in kept.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file({name: value.contiguous() for name, value in flat.items()}, path)
        return path.stat().st_size


def stored_as(name):
    """Give the model's matrices the values of a format, and say how many bytes its file has."""
    form = FORMATS[name]
    stored = {key: form.encode(w) for key, w in originals().items()}
    for key, layer in matrices(loaded()[0]):
        layer.weight.data = form.decode(stored[key], layer.weight.shape)
    return size(stored, form.dtype if name in WIDE else None)


@functools.cache
def sentences():
    """PAIRS pairs of neighboring pieces of the manual: (first pieces, second pieces)."""
    text = half("manual", True)
    places = [i * (len(text) // PAIRS) for i in range(PAIRS)]
    return [text[at : at + 250] for at in places], [text[at + 250 : at + 500] for at in places]


@torch.inference_mode()
def encoder_surprise(name):
    """Nats of a sentence encoder at the second piece that belongs to each first one, among all of them: [PAIRS].

    all-MiniLM-L6-v2 comes in float32: these weights were never quantized before. Its matrices get the values of a
    format, and give them back. As in its training, cosines are multiplied by 20 before the softmax.
    """
    encode = minilm()
    layers = [layer for layer in encode.model.encoder.modules() if isinstance(layer, torch.nn.Linear)]
    kept, form = [layer.weight.data for layer in layers], FORMATS[name]
    for layer, w in zip(layers, kept, strict=True):
        layer.weight.data = form.decode(form.encode(w), w.shape)
    try:
        first, second = (encode(texts) for texts in sentences())
    finally:
        for layer, w in zip(layers, kept, strict=True):
            layer.weight.data = w
    return F.cross_entropy(20 * first @ second.T, torch.arange(PAIRS), reduction="none")


def more(found, arm, base="fp32", text=slice(None)):
    """By how many percent an arm's perplexity is above another's: an interval over the passages, passage by passage."""
    (mine,), (other,) = found.each(arm, "nats"), found.each(base, "nats")
    logs = interval([a - b for a, b in zip(mine[text], other[text], strict=True)])
    return type(logs)(*(100 * math.expm1(value) for value in (logs.mean, logs.low, logs.high)), logs.n)
