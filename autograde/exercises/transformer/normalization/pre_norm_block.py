"""`pre_norm_block(x, norm1, attention, norm2, feed_forward)`

One Transformer block with the norms in front of its parts.
"""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import pick, randn
from autograde.exercises.transformer.normalization.shared import tight

exercise = Draft(
    "pre_norm_block",
    points=3,
    dtypes=[torch.float64],
    hints=[
        "Think of a main road for x and two side roads. Where on a side road does the norm stand?",
        "The first side road: h = x + attention(norm1(x)).",
        "The second starts where the first joined: return h + feed_forward(norm2(h)).",
    ],
)


_ORDER = ["norm1", "attention", "norm2", "feed_forward"]


@exercise.cases
def block_cases(g):
    def some(batch, length, heads, size, label, scale=1.0, view=False):
        d = heads * size
        shapes = {"qkv": (3 * d, d), "out": (d, d), "up": (2 * d + 1, d), "down": (d, 2 * d + 1)}
        weights = {name: randn(g, *shape) * shape[1] ** -0.5 for name, shape in shapes.items()}
        weights |= {name: randn(g, 2, d) * 0.5 + 0.5 for name in ("norm1", "norm2")}
        x = randn(g, length, batch, d).transpose(0, 1) if view else randn(g, batch, length, d)
        return case(x * scale, weights, heads, label=label)

    yield some(2, 5, 2, pick(g, 3, 5), "two sentences")
    yield some(3, 4, 1, 5, "one head", scale=10.0)
    yield some(1, 1, 1, 4, "one token, one head")
    yield some(1, 6, 3, 2, "three heads", scale=0.1)
    yield some(2, 3, 2, 4, "a transposed view", view=True)


@exercise.oracle
def torch_encoder_layer(x, weights, heads):
    """torch's layer in float64. In training mode, since evaluation has a shortcut without gradients."""
    d, hidden = x.shape[-1], len(weights["up"])
    layer = torch.nn.TransformerEncoderLayer(
        d, heads, hidden, dropout=0.0, batch_first=True, norm_first=True, dtype=torch.float64
    )
    values = {
        "self_attn.in_proj_weight": weights["qkv"],
        "self_attn.out_proj.weight": weights["out"],
        "linear1.weight": weights["up"],
        "linear2.weight": weights["down"],
    }
    for i in (1, 2):
        values |= {f"norm{i}.weight": weights[f"norm{i}"][0], f"norm{i}.bias": weights[f"norm{i}"][1]}
    values = {name: values.get(name, torch.zeros_like(p)).double() for name, p in layer.named_parameters()}
    return [torch.func.functional_call(layer, values, x.double()).to(x.dtype), _ORDER]


@exercise.probe
def run_block(block, x, weights, heads):
    """Build the four parts of a block from `weights`, and let `block` put them together.

    Gives the result, and the names of the parts in the order in which they were called.
    """
    import torch.nn.functional as F

    called = []

    def named(name, part):
        return lambda h: (called.append(name), part(h))[1]

    def norm(scale_and_shift):
        return lambda h: F.layer_norm(h, h.shape[-1:], scale_and_shift[0], scale_and_shift[1])

    def attention(h):
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (h @ weights["qkv"].T).chunk(3, -1))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2) @ weights["out"].T

    def feed_forward(h):
        return (h @ weights["up"].T).relu() @ weights["down"].T

    parts = {
        "norm1": norm(weights["norm1"]),
        "attention": attention,
        "norm2": norm(weights["norm2"]),
        "feed_forward": feed_forward,
    }
    return [block(x, *(named(name, part) for name, part in parts.items())), called]


@exercise.law("If both parts add nothing, x comes out as it went in")
def block_passes_on(out, one, call):
    x, weights, heads = one.args
    silent = weights | {name: torch.zeros_like(weights[name]) for name in ("out", "down")}
    return same(call(x, silent, heads)[0], x)


@exercise.law("Adding one number to a token adds it to the answer: nothing on the main road is normalized")
def block_passes_shift(out, one, call):
    x, weights, heads = one.args
    return tight(call(x + 3, weights, heads)[0], out[0] + 3)


@exercise.law("The feed-forward part hears what attention has added")
def block_second_hears_first(out, one, call):
    """What attention adds has to reach the feed-forward part: undoing the first must change what the second adds."""
    x, weights, heads = one.args
    if x.shape[1] == 1:  # too few numbers to be sure of a difference
        return None
    without_down = weights | {"down": torch.zeros_like(weights["down"])}
    without_out = weights | {"out": torch.zeros_like(weights["out"])}
    parallel = call(x, without_down, heads)[0] + call(x, without_out, heads)[0] - x
    return not same(parallel, out[0], 1e-3, 1e-3)


@exercise.law("Each part is called once")
def block_calls(out, one, call):
    return sorted(out[1]) == sorted(_ORDER) or f"called were: {', '.join(out[1])}"


exercise.law("The result has the dtype of x")(keeps_dtype)


@exercise.mistake(
    "each norm comes after its sum, as in the first Transformer (post-norm)",
    hint="Pre-norm normalizes what goes into attention and feed-forward, never the sum itself.",
)
def block_post_norm(x, norm1, attention, norm2, feed_forward):
    h = norm1(x + attention(x))
    return norm2(h + feed_forward(h))


@exercise.mistake(
    "the residual starts from the normalized tokens", hint="Add to x itself. The norm is for the branch alone."
)
def block_residual_from_norm(x, norm1, attention, norm2, feed_forward):
    n = norm1(x)
    h = n + attention(n)
    n = norm2(h)
    return n + feed_forward(n)


@exercise.mistake(
    "the residual around attention starts from the normalized tokens",
    hint="Add to x itself. The norm is for the branch alone.",
)
def block_first_residual_from_norm(x, norm1, attention, norm2, feed_forward):
    n = norm1(x)
    h = n + attention(n)
    return h + feed_forward(norm2(h))


@exercise.mistake(
    "the residuals start from the normalized tokens, and each norm is called twice",
    hint="Add to x and to h themselves. The norm is for the branch alone.",
)
def block_residual_from_norms(x, norm1, attention, norm2, feed_forward):
    h = norm1(x) + attention(norm1(x))
    return norm2(h) + feed_forward(norm2(h))


@exercise.mistake("there is no residual at all", hint="What a part returns is added to what went into its norm.")
def block_without_residuals(x, norm1, attention, norm2, feed_forward):
    return feed_forward(norm2(attention(norm1(x))))


@exercise.mistake("nothing is normalized", hint="Each part has a norm of its own in front.")
def block_without_norms(x, norm1, attention, norm2, feed_forward):
    h = x + attention(x)
    return h + feed_forward(h)


@exercise.mistake(
    "the numbers are right, but attention is called twice", hint="Keep the first sum in a name: it is needed twice."
)
def block_attention_twice(x, norm1, attention, norm2, feed_forward):
    return x + attention(norm1(x)) + feed_forward(norm2(x + attention(norm1(x))))


@exercise.mistake(
    "the numbers are right, but the block is run once for each sentence",
    hint="The parts take the whole batch: each is called once.",
)
def block_by_sentence(x, norm1, attention, norm2, feed_forward):
    rows = [block_by_loop(row[None], norm1, attention, norm2, feed_forward) for row in x]
    return torch.cat(rows)


@exercise.mistake(
    "the numbers are right, but what the feed-forward part reads is cut off from the graph",
    hint="feed_forward(norm2(h)), without detach(): what attention does is learned through it, too.",
)
def block_cut(x, norm1, attention, norm2, feed_forward):
    h = x + attention(norm1(x))
    return h + feed_forward(norm2(h.detach()))


@exercise.mistake("the residual around attention is missing", hint="h = x + attention(…).")
def block_without_first_residual(x, norm1, attention, norm2, feed_forward):
    h = attention(norm1(x))
    return h + feed_forward(norm2(h))


@exercise.mistake("the residual around the feed-forward part is missing", hint="The result is h + feed_forward(…).")
def block_without_second_residual(x, norm1, attention, norm2, feed_forward):
    return feed_forward(norm2(x + attention(norm1(x))))


@exercise.mistake(
    "the second residual starts from x again, so that what attention added is lost",
    hint="The second sum starts from h, where attention has left its part.",
)
def block_second_residual_from_x(x, norm1, attention, norm2, feed_forward):
    return x + feed_forward(norm2(x + attention(norm1(x))))


@exercise.mistake(
    "attention and feed-forward both read x, side by side",
    hint="Some models do that (GPT-J, PaLM). Here the feed-forward part reads h.",
)
def block_parallel(x, norm1, attention, norm2, feed_forward):
    return x + attention(norm1(x)) + feed_forward(norm2(x))


@exercise.mistake("the feed-forward part reads h without a norm", hint="Each part has a norm of its own in front.")
def block_without_second_norm(x, norm1, attention, norm2, feed_forward):
    h = x + attention(norm1(x))
    return h + feed_forward(h)


@exercise.mistake("attention reads x without a norm", hint="Each part has a norm of its own in front.")
def block_without_first_norm(x, norm1, attention, norm2, feed_forward):
    h = x + attention(x)
    return h + feed_forward(norm2(h))


@exercise.mistake("the two norms are swapped", hint="norm1 belongs to attention, norm2 to the rest.")
def block_norms_swapped(x, norm1, attention, norm2, feed_forward):
    h = x + attention(norm2(x))
    return h + feed_forward(norm1(h))


@exercise.mistake("norm1 is used twice", hint="The second norm has weights of its own.")
def block_one_norm_twice(x, norm1, attention, norm2, feed_forward):
    h = x + attention(norm1(x))
    return h + feed_forward(norm1(h))


@exercise.mistake(
    "each part's answer is normalized instead of its input", hint="norm first, then attention: attention(norm1(x))."
)
def block_norm_after_part(x, norm1, attention, norm2, feed_forward):
    h = x + norm1(attention(x))
    return h + norm2(feed_forward(h))


@exercise.mistake(
    "the feed-forward part comes before attention",
    hint="First the tokens talk to each other, then each thinks for itself.",
)
def block_feed_forward_first(x, norm1, attention, norm2, feed_forward):
    h = x + feed_forward(norm1(x))
    return h + attention(norm2(h))


@exercise.mistake(
    "norm2 stands at the end of the block", hint="feed_forward(norm2(h)), and nothing after the last sum."
)
def block_norm_at_the_end(x, norm1, attention, norm2, feed_forward):
    h = x + attention(norm1(x))
    return norm2(h + feed_forward(h))


@exercise.mistake("norm2 stands at the end of the block as well", hint="After the last sum there is nothing more.")
def block_norm_at_the_end_as_well(x, norm1, attention, norm2, feed_forward):
    return norm2(block_by_loop(x, norm1, attention, norm2, feed_forward))


@exercise.alternative
def block_by_loop(x, norm1, attention, norm2, feed_forward):
    for norm, part in ((norm1, attention), (norm2, feed_forward)):
        x = torch.add(part(norm(x)), x)
    return x


@exercise.alternative
def block_in_place(x, norm1, attention, norm2, feed_forward):
    """What a part returns is its own, and may be written into."""
    stream = attention(norm1(x))
    stream += x
    end = feed_forward(norm2(stream))
    end += stream
    return end
