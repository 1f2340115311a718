"""What the loss and the model of 01_transformer/09_pretrain_gpt are judged by: torch's loss, transformers' LLaMA."""

from __future__ import annotations

import functools
import math

import torch

from autograde.exercise import case, same


def _randn(g, *shape):
    return torch.randn(*shape, generator=g)


# ---- cross_entropy --------------------------------------------------------------------------------------------------

def loss_and_gradient(cross_entropy, logits, targets, **options):
    """The loss, and its gradient for the logits: zeros where the loss doesn't know where it came from."""
    import torch

    logits = logits.detach().requires_grad_()
    loss = cross_entropy(logits, targets, **options)
    if isinstance(loss, torch.Tensor) and loss.requires_grad:
        loss.backward()
    return [loss, torch.zeros_like(logits) if logits.grad is None else logits.grad]


def torch_loss_and_gradient(logits, targets, ignore_index=-100):
    logits = logits.detach().double().requires_grad_()
    rows = logits.reshape(-1, logits.shape[-1])
    loss = torch.nn.functional.cross_entropy(rows, targets.reshape(-1), ignore_index=ignore_index)
    loss.backward()
    return [loss.float(), logits.grad.float()]


def loss_cases(g):
    def some(*shape, classes=7, scale=2.0):
        return _randn(g, *shape, classes) * scale, torch.randint(classes, shape, generator=g)

    def padded(logits, targets, index=-100, share=0.4):
        hidden = torch.rand(targets.shape, generator=g) < share
        hidden.view(-1)[0], hidden.view(-1)[-1] = False, True
        return logits, targets.masked_fill(hidden, index)

    yield case(*some(2, 5), label="a batch")
    yield case(*some(6, classes=3), label="one row")
    yield case(*some(classes=4), label="one token")
    yield case(*some(1, 1, classes=2), label="two classes")
    yield case(*padded(*some(3, 6)), label="with padding")
    logits, targets = some(4, 6)
    ends = torch.tensor([6, 1, 3, 0])
    yield case(logits, targets.masked_fill(torch.arange(6) >= ends[:, None], -100), label="rows of different lengths")
    yield case(*padded(*some(2, 2, 4, classes=5)), label="two batch dimensions")
    yield case(*padded(*some(4, 4, classes=4), index=2), ignore_index=2, label="class 2 is the padding")
    yield case(*padded(*some(3, 5), index=0), ignore_index=0, label="class 0 is the padding")
    yield case(*padded(*some(3, 4), index=-1), ignore_index=-1, label="padding is -1")
    yield case(*some(3, 4, scale=1e4), label="logits of ten thousand")
    far = torch.tensor([1e4, -1e4, 300.0])[:, None]
    logits, targets = some(2, 3, classes=5)
    yield case(logits + far, targets, label="each token's logits on a level of its own")
    yield case(torch.zeros(3, 4, 9), targets.new_tensor([[0, 8, 4, 1]] * 3), label="all classes alike")
    yield case(-_randn(g, 4, 6).abs() * 90, torch.randint(6, (4,), generator=g), label="all logits below zero")


def alike_when_shifted(out, one, call):
    """A constant on all logits of a token changes nothing."""
    logits, targets = one.args
    shift = torch.arange(targets.numel(), dtype=logits.dtype).view(targets.shape)[..., None] * 3 - 5
    return same(call(logits + shift, targets, **one.kwargs)[0], out[0], rtol=1e-3, atol=1e-2)


def knowing_nothing(out, one, call):
    """Equal logits give log(classes)."""
    logits, targets = one.args
    return same(call(torch.full_like(logits, 3.0), targets, **one.kwargs)[0], math.log(logits.shape[-1]), atol=1e-4)


def padding_is_silent(out, one, call):
    """The logits at padding have no gradient, and don't count."""
    logits, targets = one.args
    hidden = targets == one.kwargs.get("ignore_index", -100)
    if not hidden.any():
        return None
    if out[1][hidden].abs().sum() > 0:
        return "the logits at padding have a gradient"
    return same(call(torch.where(hidden[..., None], 3 * logits + 1, logits), targets, **one.kwargs)[0], out[0])


def gradient_sums_to_zero(out, one, call):
    """Softmax minus one-hot: over the classes it adds up to 0, and somewhere it isn't 0."""
    return same(out[1].sum(-1), torch.zeros(out[1].shape[:-1]), atol=1e-4) and bool(out[1].isfinite().all())


# ---- gpt_forward ----------------------------------------------------------------------------------------------------

def run_gpt(gpt_forward, ids, weights, n_heads, base=10_000.0, eps=1e-6):
    """Let `gpt_forward` put together parts that are known to be right."""
    import types

    import torch

    def attention(q, k, v, mask=None):
        scores = q @ k.mT * q.shape[-1] ** -0.5
        return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1).nan_to_num(0.0) @ v

    def rope(x, positions):
        angle = positions[..., None].float() * base ** (-torch.arange(0, x.shape[-1], 2) / x.shape[-1])
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        first, second = x.chunk(2, -1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)

    def norm(x, weight=None):
        return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * (1.0 if weight is None else weight)

    def mlp(x, w_gate, w_up, w_down):
        return (torch.nn.functional.silu(x @ w_gate.T) * (x @ w_up.T)) @ w_down.T

    parts = types.SimpleNamespace(attention=attention, rope=rope, norm=norm, mlp=mlp)
    return gpt_forward(ids, weights, n_heads, parts)


_PLACES = {
    "norm1": "input_layernorm", "norm2": "post_attention_layernorm",
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
}


@functools.lru_cache(maxsize=64)
def _empty_llama(vocabulary, d, hidden, layers, heads, base, eps, dtype):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=d, intermediate_size=hidden, num_hidden_layers=layers,
        num_attention_heads=heads, rms_norm_eps=eps, rope_parameters={"rope_type": "default", "rope_theta": base},
        max_position_embeddings=64, attn_implementation="eager", tie_word_embeddings=True,
        pad_token_id=None, bos_token_id=None, eos_token_id=None,
    )
    return LlamaForCausalLM(config).to(dtype).eval()


def llama(ids, weights, n_heads, base=10_000.0, eps=1e-6):
    """transformers' LLaMA with the same weights."""
    embed, layers = weights["embed"], weights["layers"]
    model = _empty_llama(*embed.shape, len(layers[0]["gate"]), len(layers), n_heads, base, eps, embed.dtype)
    values = {"model.embed_tokens.weight": embed, "lm_head.weight": embed, "model.norm.weight": weights["norm"]}
    for i, layer in enumerate(layers):
        values |= {f"model.layers.{i}.{place}.weight": layer[name] for name, place in _PLACES.items()}
    model.load_state_dict(values)
    with torch.no_grad():
        return model(ids, use_cache=False).logits


def _gpt_weights(g, vocabulary, d, hidden, layers, scale=1.0):
    def matrix(out, into):
        return _randn(g, out, into) * 1.5 * into**-0.5

    def gains():
        return 0.5 + torch.rand(d, generator=g)

    def layer():
        return {
            "norm1": gains(), **{name: matrix(d, d) for name in "qkvo"}, "norm2": gains(),
            "gate": matrix(hidden, d), "up": matrix(hidden, d), "down": matrix(d, hidden),
        }

    return {"embed": _randn(g, vocabulary, d) * scale, "layers": [layer() for _ in range(layers)], "norm": gains()}


def gpt_cases(g):
    def model(rows, n, vocabulary=11, d=8, heads=2, hidden=12, layers=2, scale=1.0):
        ids = torch.randint(vocabulary, (rows, n), generator=g)
        return ids, _gpt_weights(g, vocabulary, d, hidden, layers, scale), heads

    yield case(*model(2, 5), label="two layers")
    yield case(*model(1, 6, layers=1), label="one layer")
    yield case(*model(3, 4, d=12, heads=3, layers=3), label="three layers, three heads")
    yield case(*model(2, 7, d=4, heads=1, hidden=4), label="one head, square matrices")
    yield case(*model(1, 1), label="a single token")
    yield case(*model(2, 5, hidden=5, layers=1), base=100.0, eps=0.1, label="another base, another eps")
    yield case(*model(1, 9, vocabulary=3, d=16, heads=8), label="heads of two numbers, words that repeat")
    yield case(*model(2, 3, scale=20.0), label="large embeddings")


def blind_to_the_future(out, one, call):
    """Another last token changes nothing before it."""
    ids, weights, heads = one.args
    if ids.shape[1] < 2:
        return None
    other = ids.clone()
    other[:, -1] = (other[:, -1] + 1) % len(weights["embed"])
    return same(call(other, weights, heads, **one.kwargs)[:, :-1], out[:, :-1])


def order_counts(out, one, call):
    """With one layer, the last token's scores still depend on the order of those before it."""
    ids, weights, heads = one.args
    if len(ids) > 1:  # some cases are enough: a watched forward pass is slow
        return None
    small = {**weights, "layers": weights["layers"][:1]}
    rows = torch.tensor([[0, 1, 2], [1, 2, 0], [2, 0, 1]])
    forth, back = (call(row, small, heads, **one.kwargs)[:, -1] for row in (rows, rows[:, [1, 0, 2]]))
    return not same(forth, back)


def silent_layers_add_nothing(out, one, call):
    """Where o and down are 0, only the embeddings, the last norm and the head are left."""
    ids, weights, heads = one.args
    if ids.shape[1] > 4:
        return None
    silent = [{**layer, "o": 0 * layer["o"], "down": 0 * layer["down"]} for layer in weights["layers"]]
    x = weights["embed"][ids]
    eps = one.kwargs.get("eps", 1e-6)
    bare = x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * weights["norm"] @ weights["embed"].T
    return same(call(ids, {**weights, "layers": silent}, heads, **one.kwargs), bare, rtol=1e-3, atol=1e-3)


def keeps_the_weights_dtype(out, one, call):
    """float64 weights give float64 logits, all of their digits."""
    ids, weights, heads = one.args
    if ids.shape[1] > 1:
        return None
    wide = {**weights, "embed": weights["embed"].double(), "norm": weights["norm"].double(),
            "layers": [{name: w.double() for name, w in layer.items()} for layer in weights["layers"]]}
    found = call(ids, wide, heads, **one.kwargs).dtype
    return found == torch.float64 or f"float64 weights went in, {found} came out"
