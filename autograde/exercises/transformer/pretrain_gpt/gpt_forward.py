"""`gpt_forward(ids, weights, n_heads, parts)`

The logits of the next token at every position, by a model of the LLaMA architecture.
"""

from __future__ import annotations

import functools
import math
import types

import torch
import torch.nn.functional as F

from autograde.borrowed import borrowed
from autograde.exercise import Draft, case, same
from autograde.exercises.shared import randn

exercise = Draft(
    "gpt_forward",
    points=4,
    forbid=["transformers"],
    dtypes=[torch.float64],  # bfloat16 leaves little of two layers
    rtol=1e-3,
    atol=1e-3,
    hints=[
        "Embed; in each layer twice x = x + part(norm(x)); one more norm; multiply by the embeddings.",
        "Attention: three projections, each split into heads [rows, heads, n, d / heads]; rotate q and k; attend with "
        "torch.ones(n, n, dtype=torch.bool).tril(); join the heads; project with o.",
        "q, k, v = ((h @ layer[w].T).unflatten(-1, (n_heads, -1)).transpose(1, 2) for w in 'qkv'), and afterwards "
        "x = x + heads.transpose(1, 2).flatten(2) @ layer['o'].T",
    ],
)


def _gpt_weights(g, vocabulary, d, hidden, layers, scale=1.0):
    def matrix(out, into):
        return randn(g, out, into) * 1.5 * into**-0.5

    def gains():
        return 0.5 + torch.rand(d, generator=g)

    def layer():
        return {
            "norm1": gains(),
            **{name: matrix(d, d) for name in "qkvo"},
            "norm2": gains(),
            "gate": matrix(hidden, d),
            "up": matrix(hidden, d),
            "down": matrix(d, hidden),
        }

    return {"embed": randn(g, vocabulary, d) * scale, "layers": [layer() for _ in range(layers)], "norm": gains()}


@exercise.cases
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
    yield case(*model(1, 50, vocabulary=150, layers=1), label="a longer text")


_PLACES = {
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
_LLAMA = "transformers.models.llama.modeling_llama"


@functools.lru_cache(maxsize=64)
def _empty_llama(d, hidden, heads, base, eps, dtype):
    """A layer, a norm and the rotary module of transformers' LLaMA."""
    config = borrowed("transformers.modeling_rope_utils", "RotaryEmbeddingConfigMixin")()
    vars(config).update(
        hidden_size=d,
        intermediate_size=hidden,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=d // heads,
        hidden_act="silu",
        rms_norm_eps=eps,
        rope_parameters={"rope_type": "default", "rope_theta": base},
        max_position_embeddings=64,
        attention_bias=False,
        attention_dropout=0.0,
        mlp_bias=False,
        _attn_implementation="eager",
    )
    layer, norm = borrowed(_LLAMA, "LlamaDecoderLayer")(config, 0), borrowed(_LLAMA, "LlamaRMSNorm")(d, eps)
    return layer.to(dtype).eval(), norm.to(dtype), borrowed(_LLAMA, "LlamaRotaryEmbedding")(config)


@exercise.oracle
def llama(ids, weights, n_heads, base=10_000.0, eps=1e-6):
    """The layers of transformers' LLaMA with the same weights; a test holds it against the whole model."""
    embed, n = weights["embed"], ids.shape[-1]
    d, hidden = embed.shape[1], len(weights["layers"][0]["gate"])
    empty, norm, rotary = _empty_llama(d, hidden, n_heads, base, eps, embed.dtype)
    x, call = F.embedding(ids, embed), torch.func.functional_call
    mask = torch.full((1, 1, n, n), torch.finfo(x.dtype).min, dtype=x.dtype).triu(1)
    given = {"attention_mask": mask, "position_embeddings": rotary(x, torch.arange(n)[None])}
    for layer in weights["layers"]:
        values = {f"{place}.weight": layer[name] for name, place in _PLACES.items()}
        x = call(empty, values, (x,), given)
    return F.linear(call(norm, {"weight": weights["norm"]}, (x,)), embed)


@exercise.probe
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


@exercise.law("What comes later changes nothing before it")
def blind_to_the_future(out, one, call):
    """Another last token changes nothing before it."""
    ids, weights, heads = one.args
    if ids.shape[1] < 2:
        return None
    other = ids.clone()
    other[:, -1] = (other[:, -1] + 1) % len(weights["embed"])
    return same(call(other, weights, heads, **one.kwargs)[:, :-1], out[:, :-1])


@exercise.law("The order of the earlier tokens counts")
def order_counts(out, one, call):
    """With one layer, the last token's scores still depend on the order of those before it."""
    ids, weights, heads = one.args
    if len(ids) > 1:  # some cases are enough: a watched forward pass is slow
        return None
    small = {**weights, "layers": weights["layers"][:1]}
    rows = torch.tensor([[0, 1, 2], [1, 2, 0], [2, 0, 1]])
    forth, back = (call(row, small, heads, **one.kwargs)[:, -1] for row in (rows, rows[:, [1, 0, 2]]))
    return not same(forth, back)


@exercise.law("Layers that add nothing leave the embeddings")
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


@exercise.law("The logits have the dtype of the weights")
def keeps_the_weights_dtype(out, one, call):
    """float64 weights give float64 logits, all of their digits."""
    ids, weights, heads = one.args
    if ids.shape[1] > 1:
        return None
    wide = {
        **weights,
        "embed": weights["embed"].double(),
        "norm": weights["norm"].double(),
        "layers": [{name: w.double() for name, w in layer.items()} for layer in weights["layers"]],
    }
    found = call(ids, wide, heads, **one.kwargs).dtype
    return found == torch.float64 or f"float64 weights went in, {found} came out"


def _split(h, heads):
    return h.unflatten(-1, (heads, -1)).transpose(-3, -2)


def _join(h):
    return h.transpose(-3, -2).flatten(-2)


def _causal(n):
    return torch.ones(n, n, dtype=torch.bool).tril()


def _rotated(q, k, v, positions, parts):
    return parts.rope(q, positions), parts.rope(k, positions), v


def _attend(h, layer, heads, parts, **changes):
    """Attention of one layer in parts: projection, split, rotation, mask, join, output."""
    usual = {"split": _split, "rotate": _rotated, "mask": _causal, "join": _join, "product": lambda x, w: x @ w.T}
    do = usual | changes
    q, k, v = (do["split"](do["product"](h, layer[name]), heads) for name in "qkv")
    positions = torch.arange(h.shape[-2])
    joined = do["join"](parts.attention(*do["rotate"](q, k, v, positions, parts), do["mask"](h.shape[-2])))
    return do["product"](joined, layer["o"]) if do.get("output", True) else joined


def _mlp(h, layer, parts):
    return parts.mlp(h, layer["gate"], layer["up"], layer["down"])


def _pre_norm(x, layer, attend, parts):
    x = x + attend(parts.norm(x, layer["norm1"]))
    return x + _mlp(parts.norm(x, layer["norm2"]), layer, parts)


def _logits(x, weights, parts):
    return parts.norm(x, weights["norm"]) @ weights["embed"].T


def _gpt(block=_pre_norm, head=_logits, stack=list, enter=lambda x: x, **attention):
    """A GPT in parts: what is done to the embeddings, the block, the order of the layers, the head, the attention."""

    def forward(ids, weights, n_heads, parts):
        x = enter(weights["embed"][ids])
        for layer in stack(weights["layers"]):
            x = block(x, layer, lambda h, layer=layer: _attend(h, layer, n_heads, parts, **attention), parts)
        return head(x, weights, parts)

    return forward


def _block(*steps):
    """A block from its steps: x = step(x, p), where p has the norms n1, n2 and bare, the attention a and the MLP m."""

    def block(x, layer, attend, parts):
        p = types.SimpleNamespace(
            a=attend,
            m=lambda h: _mlp(h, layer, parts),
            bare=parts.norm,
            n1=lambda h: parts.norm(h, layer["norm1"]),
            n2=lambda h: parts.norm(h, layer["norm2"]),
        )
        for step in steps:
            x = step(x, p)
        return x

    return block


exercise.mistake(
    "the norms come after the sums",
    hint="That is the first Transformer. Here x + part(norm(x)): nothing on the way of x is normalized.",
)(_gpt(_block(lambda x, p: p.n1(x + p.a(x)), lambda x, p: p.n2(x + p.m(x)))))

exercise.mistake("the norms are missing in the layers", hint="x + part(norm(x)).")(
    _gpt(_block(lambda x, p: x + p.a(x), lambda x, p: x + p.m(x)))
)

exercise.mistake(
    "the parts' results are normalized instead of their inputs",
    hint="The norm stands in front of the part: part(norm(x)), and the result is added as it is.",
)(_gpt(_block(lambda x, p: x + p.n1(p.a(x)), lambda x, p: x + p.n2(p.m(x)))))

exercise.mistake("the normalized x takes the place of x in the sum", hint="Add to x itself: x = x + part(norm(x)).")(
    _gpt(
        _block(
            lambda x, p: p.n1(x),
            lambda x, p: x + p.a(x),
            lambda x, p: p.n2(x),
            lambda x, p: x + p.m(x),
        )
    )
)

exercise.mistake("norm1 serves both parts", hint="norm2 stands in front of the MLP.")(
    _gpt(_block(lambda x, p: x + p.a(p.n1(x)), lambda x, p: x + p.m(p.n1(x))))
)

exercise.mistake(
    "norm1 and norm2 are swapped", hint="norm1 stands in front of the attention, norm2 in front of the MLP."
)(_gpt(_block(lambda x, p: x + p.a(p.n2(x)), lambda x, p: x + p.m(p.n1(x)))))

exercise.mistake("the layers' norms have no weights", hint="parts.norm(x, weight) multiplies by the weight.")(
    _gpt(_block(lambda x, p: x + p.a(p.bare(x)), lambda x, p: x + p.m(p.bare(x))))
)

exercise.mistake(
    "the MLP reads the x from before the attention", hint="That is GPT-J's parallel block. Here the MLP reads the sum."
)(_gpt(_block(lambda x, p: x + p.a(p.n1(x)) + p.m(p.n2(x)))))

exercise.mistake("the MLP comes before the attention", hint="First the attention.")(
    _gpt(_block(lambda x, p: x + p.m(p.n2(x)), lambda x, p: x + p.a(p.n1(x))))
)

exercise.mistake("the attention's result isn't added to x", hint="x = x + attention(…): the residual connection.")(
    _gpt(_block(lambda x, p: p.a(p.n1(x)), lambda x, p: x + p.m(p.n2(x))))
)

exercise.mistake("the MLP's result isn't added to x", hint="x = x + mlp(…): the residual connection.")(
    _gpt(_block(lambda x, p: x + p.a(p.n1(x)), lambda x, p: p.m(p.n2(x))))
)

exercise.mistake("there are no residual connections", hint="Both parts add to x.")(
    _gpt(_block(lambda x, p: p.m(p.n2(p.a(p.n1(x))))))
)

exercise.mistake("the MLP is missing", hint="Each layer has two parts.")(_gpt(_block(lambda x, p: x + p.a(p.n1(x)))))

exercise.mistake("the last norm is missing", hint="weights['norm'] stands before the head.")(
    _gpt(head=lambda x, weights, parts: x @ weights["embed"].T)
)

exercise.mistake("the last norm has no weight", hint="Its weight is weights['norm'].")(
    _gpt(head=lambda x, weights, parts: parts.norm(x) @ weights["embed"].T)
)

exercise.mistake("probabilities are returned", hint="Logits: the loss has its own softmax.")(
    _gpt(head=lambda x, weights, parts: _logits(x, weights, parts).softmax(-1))
)

exercise.mistake("only the last token's logits are returned", hint="Every position predicts its next token.")(
    _gpt(head=lambda x, weights, parts: _logits(x[:, -1], weights, parts))
)

exercise.mistake("the head is missing", hint="It is tied: multiply by the embeddings again, transposed.")(
    _gpt(head=lambda x, weights, parts: parts.norm(x, weights["norm"]))
)

exercise.mistake("no gradient reaches the embeddings by way of the head", hint="The head is tied: don't detach it.")(
    _gpt(head=lambda x, weights, parts: parts.norm(x, weights["norm"]) @ weights["embed"].detach().T)
)

exercise.mistake("the logits are float32, whatever the weights are", hint="Leave the dtype alone.")(
    _gpt(enter=lambda x: x, head=lambda x, weights, parts: _logits(x, weights, parts).float())
)

exercise.mistake(
    "the first layer's weights are used in every layer", hint="Each layer has its own: for layer in weights['layers']."
)(_gpt(stack=lambda layers: layers[:1] * len(layers)))

exercise.mistake("the layers run in reverse", hint="In the order in which they are given.")(
    _gpt(stack=lambda layers: layers[::-1])
)

exercise.mistake("the last layer is left out", hint="All of them.")(_gpt(stack=lambda layers: layers[:-1]))

exercise.mistake(
    "the embeddings are multiplied by the root of their width",
    hint="The first Transformer and Gemma do so; LLaMA doesn't.",
)(_gpt(enter=lambda x: x * math.sqrt(x.shape[-1])))

exercise.mistake("there is no mask", hint="A token may read itself and what is before it: tril.")(
    _gpt(mask=lambda n: torch.ones(n, n, dtype=torch.bool))
)

exercise.mistake("the mask hides what it should show", hint="True means: may attend.")(_gpt(mask=lambda n: ~_causal(n)))

exercise.mistake(
    "the mask shows the future and hides the past", hint="tril, not triu: rows are queries, columns are keys."
)(_gpt(mask=lambda n: _causal(n).T))

exercise.mistake("a token may not read itself", hint="tril() keeps the diagonal.")(
    _gpt(mask=lambda n: torch.ones(n, n, dtype=torch.bool).tril(-1))
)

exercise.mistake("queries and keys aren't rotated", hint="parts.rope(q, positions), and k.")(
    _gpt(rotate=lambda q, k, v, at, parts: (q, k, v))
)

exercise.mistake("only queries are rotated", hint="Queries and keys: then their product knows the distance.")(
    _gpt(rotate=lambda q, k, v, at, parts: (parts.rope(q, at), k, v))
)

exercise.mistake("the values are rotated, too", hint="Values carry content, not places.")(
    _gpt(rotate=lambda q, k, v, at, parts: tuple(parts.rope(x, at) for x in (q, k, v)))
)

exercise.mistake("the positions run backwards", hint="0, 1, 2, …")(
    _gpt(rotate=lambda q, k, v, at, parts: (parts.rope(q, -at), parts.rope(k, -at), v))
)


@exercise.mistake(
    "the rotation comes before the split into heads",
    hint="Each head is rotated by itself: first split, then parts.rope.",
)
def gpt_rope_before_split(ids, weights, n_heads, parts):
    """The rotation runs over the whole width instead of over each head."""

    def rotate(q, k, v, positions, parts):
        return *(_split(parts.rope(_join(x), positions), n_heads) for x in (q, k)), v

    return _gpt(rotate=rotate)(ids, weights, n_heads, parts)


exercise.mistake(
    "the heads are cut without a transpose", hint="[rows, n, d] to [rows, n, heads, d / heads], and then transpose."
)(_gpt(split=lambda h, heads: h.reshape(*h.shape[:-2], heads, h.shape[-2], -1)))

exercise.mistake(
    "the heads are joined without a transpose", hint="[rows, heads, n, d / heads]: transpose back before you flatten."
)(_gpt(join=lambda h: h.reshape(*h.shape[:-3], h.shape[-2], -1)))

exercise.mistake(
    "the heads take every n_heads-th column", hint="A head owns neighboring columns: unflatten(-1, (n_heads, -1))."
)(
    _gpt(
        split=lambda h, heads: h.unflatten(-1, (-1, heads)).movedim(-1, -3),
        join=lambda h: h.movedim(-3, -1).flatten(-2),
    )
)

gpt = _gpt()


@exercise.mistake("there is one head only", hint="n_heads of them, each d / n_heads wide.")
def gpt_one_head(ids, weights, n_heads, parts):
    return gpt(ids, weights, 1, parts)


exercise.mistake("the output projection is missing", hint="joined @ layer['o'].T")(_gpt(output=False))

exercise.mistake(
    "the attention's matrices aren't transposed", hint="They are stored as nn.Linear stores them, [out, in]: x @ w.T."
)(_gpt(product=lambda x, w: x @ w))


@exercise.mistake("gate and up are swapped", hint="parts.mlp(x, gate, up, down).")
def gpt_gate_and_up_swapped(ids, weights, n_heads, parts):
    layers = [{**layer, "gate": layer["up"], "up": layer["gate"]} for layer in weights["layers"]]
    return gpt(ids, {**weights, "layers": layers}, n_heads, parts)


exercise.alternative(gpt)


@exercise.alternative
def gpt_by_library(ids, weights, n_heads, parts):
    """torch's attention and loops over heads; the other parts as given."""
    n, x = ids.shape[1], F.embedding(ids, weights["embed"])
    for w in weights["layers"]:
        h = parts.norm(x, w["norm1"])
        blocks = [[F.linear(h, part) for part in w[name].chunk(n_heads)] for name in "qkv"]
        heads = [
            F.scaled_dot_product_attention(
                parts.rope(q, torch.arange(n)), parts.rope(k, torch.arange(n)), v, is_causal=True
            )
            for q, k, v in zip(*blocks, strict=True)
        ]
        x = x + F.linear(torch.cat(heads, -1), w["o"])
        x = x + parts.mlp(parts.norm(x, w["norm2"]), w["gate"], w["up"], w["down"])
    return F.linear(parts.norm(x, weights["norm"]), weights["embed"])


@exercise.alternative
def gpt_from_position_seven(ids, weights, n_heads, parts):
    """Positions may begin anywhere: only distances count. The mask has the batch's dimensions."""
    late = types.SimpleNamespace(**{**vars(parts), "rope": lambda x, at: parts.rope(x, at + 7)})
    return _gpt(mask=lambda n: (torch.arange(n)[:, None] >= torch.arange(n))[None, None])(ids, weights, n_heads, late)
