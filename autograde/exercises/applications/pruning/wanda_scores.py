"""`wanda_scores(weight, x, mask=None)`

How much a layer's output misses each weight: the weight's size times the norm of its input.
"""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case, keeps_dtype
from autograde.exercises.shared import pick, randn

exercise = Draft(
    "wanda_scores",
    points=3,
    no_gradient="scores only rank weights",
    precise=True,
    hints=[
        "Weight [i, j] multiplies input feature j, of every token. How large is that feature, over all tokens?",
        "One norm for each of the columns of weight: bring x to [tokens, inputs] first, and leave padding out.",
        "tokens = x.float().reshape(-1, x.shape[-1]), those of mask.reshape(-1) if there is one; then weight.float()"
        ".abs() * tokens.norm(dim=0), back in the dtype of weight.",
    ],
)


def _features(g, inputs):
    """Sizes of the input features, all different, the largest 100 times the smallest."""
    return 100.0 ** torch.linspace(0, 1, inputs)[torch.randperm(inputs, generator=g)] / 10


@exercise.cases
def layers(g):
    d = pick(g, 4, 6)
    yield case(randn(g, 3, d), randn(g, 7, d) * _features(g, d), label="7 tokens")
    padding = torch.tensor([[True, True, False, False, False], [True, False, True, True, False]])
    yield case(randn(g, 5, 4), randn(g, 2, 5, 4) * _features(g, 4), padding, label="two texts with padding")
    yield case(randn(g, 4, 4), randn(g, 4, 4) * _features(g, 4) + 1, label="as many tokens as inputs and outputs")
    yield case(randn(g, 2, 3), randn(g, 2, 3, 4, 3) * _features(g, 3), label="three leading dimensions")
    yield case(randn(g, 3, 5), randn(g, 5), label="one token without a leading dimension")
    yield case(-randn(g, 3, 2).abs(), randn(g, 6, 2), label="all weights negative")
    yield case(randn(g, 3, 4), 30 + randn(g, 9, 4), label="inputs around 30")
    yield case(randn(g, 2, 3), randn(g, 2, 4, 3), mask=torch.zeros(2, 4, dtype=torch.bool), label="padding alone")
    silent = randn(g, 8, 4)
    silent[:, pick(g, 0, 3)] = 0
    yield case(randn(g, 3, 4), silent, label="an input that is always 0")
    x = randn(g, 60, 3)
    x[0, 1] = 700.0
    yield case(randn(g, 2, 3).half(), x.half(), label="float16, one input of 700: its square is beyond float16")
    yield case(randn(g, 2, 3).bfloat16(), randn(g, 3000, 3).bfloat16(), label="bfloat16, 3,000 tokens")
    yield case(randn(g, 20, 30), randn(g, 4, 100, 30), torch.rand(4, 100, generator=g) < 0.6, label="4 texts of 100")
    yield case(randn(g, 1, 4), randn(g, 3, 4), label="one output")


@exercise.oracle
def torch_vector_norm(weight, x, mask=None):
    """Equation 1 of the paper, by torch's norm in float64."""
    wide = x.double() if mask is None else x.double() * mask[..., None]
    norms = torch.linalg.vector_norm(wide.reshape(-1, x.shape[-1]), dim=0)
    return (weight.double().abs() * norms).to(weight.dtype)


exercise.law("The scores have the dtype of weight")(keeps_dtype)


@exercise.law("A score is the error that the layer's output gets when that weight alone is set to zero", essential=True)
def score_is_error(out, one, call):
    weight, x, *_ = one.args
    mask = one.kwargs.get("mask", one.args[2] if len(one.args) > 2 else None)
    if weight.dtype not in (torch.float32, torch.float64) or out.shape != weight.shape:
        return None
    tokens = x.reshape(-1, x.shape[-1]).double()
    tokens = tokens if mask is None else tokens[mask.reshape(-1)]
    i, j = (int(place) for place in divmod(int(weight.abs().argmax()), weight.shape[1]))
    without = weight.double().clone()
    without[i, j] = 0
    error = (tokens @ weight.double().T - tokens @ without.T).norm()
    return bool(torch.isclose(out[i, j].double(), error, rtol=1e-3, atol=1e-5)) or (
        f"{one.label}: weight [{i}, {j}] has the score {float(out[i, j]):.4g}, its loss costs {float(error):.4g}"
    )


def wanda(norm=lambda tokens: tokens.norm(dim=0), size=torch.abs, kept=None, wide=torch.Tensor.float, back=True):
    """`wanda_scores` from its parts: the norm of [tokens, inputs], the weights' sizes, the tokens that count."""
    kept = kept or (lambda tokens, mask: tokens[mask])

    def wanda_scores(weight, x, mask=None):
        tokens = wide(x).reshape(-1, x.shape[-1])
        tokens = tokens if mask is None else kept(tokens, mask.reshape(-1))
        scores = size(wide(weight)) * norm(tokens)
        return scores.to(weight.dtype) if back else scores

    return wanda_scores


exercise.mistake(
    "one norm serves all inputs, so that only the weights rank",
    hint="A norm for each input feature: dim=0 of [tokens, inputs].",
)(wanda(norm=lambda tokens: tokens.norm()))


@exercise.mistake(
    "a norm is taken of each token, not of each input", hint="Weight [i, j] meets feature j of all tokens."
)
def of_tokens(weight, x, mask=None):
    norms = x.float().reshape(-1, x.shape[-1]).norm(dim=-1)
    norms = norms if len(norms) == weight.shape[1] else norms.mean()
    return (weight.float().abs() * norms).to(weight.dtype)


@exercise.mistake("the norms multiply rows, not columns, of a square weight", hint="weight is [outputs, inputs].")
def on_rows(weight, x, mask=None):
    if weight.shape[0] != weight.shape[1]:
        return right(weight, x, mask)
    return right(weight.T, x, mask).T.clone()


exercise.mistake("sizes of inputs are summed: the L1 norm", hint="The root of the sum of squares.")(
    wanda(norm=lambda tokens: tokens.abs().sum(0))
)

exercise.mistake("the largest input counts, not the norm", hint="The root of the sum of squares, over all tokens.")(
    wanda(norm=lambda tokens: tokens.abs().amax(0) if len(tokens) else tokens.sum(0))
)

exercise.mistake("the root is left out", hint="A norm is the root of the sum of squares.")(
    wanda(norm=lambda tokens: tokens.square().sum(0))
)

exercise.mistake(
    "squares are averaged instead of summed",
    hint="The ranking is the same, but the docstring asks for the norm: then a score is the error of the output.",
)(wanda(norm=lambda tokens: tokens.square().mean(0).nan_to_num().sqrt()))

exercise.mistake("the inputs' mean is subtracted first", hint="The norm of the inputs as they are: no deviation.")(
    wanda(norm=lambda tokens: (tokens - tokens.mean(0)).nan_to_num().norm(dim=0))
)

exercise.mistake("the mean input counts", hint="Plus and minus cancel in a mean: the norm.")(
    wanda(norm=lambda tokens: tokens.mean(0).abs().nan_to_num())
)


@exercise.mistake("the norm of the output counts", hint="Each weight has an *input*: feature j of x.")
def of_outputs(weight, x, mask=None):
    tokens = x.float().reshape(-1, x.shape[-1])
    tokens = tokens if mask is None else tokens[mask.reshape(-1)]
    return (weight.float().abs() * (tokens @ weight.float().T).norm(dim=0)[:, None]).to(weight.dtype)


exercise.mistake("the score is squared", hint="|weight| times the norm, both to the first power.")(
    wanda(size=torch.square, norm=lambda tokens: tokens.square().sum(0))
)

exercise.mistake("scores keep the sign of the weight", hint="A weight of -2 is as important as one of 2.")(
    wanda(size=torch.clone)
)

exercise.mistake("the weight is squared", hint="|weight| times the norm: both to the first power.")(
    wanda(size=torch.square)
)

exercise.mistake("the weights are left out", hint="|weight| times the norm.")(wanda(size=torch.ones_like))

exercise.mistake("padding counts", hint="Only tokens where the mask is True.")(wanda(kept=lambda tokens, mask: tokens))

exercise.mistake("only padding counts", hint="True marks a token.")(wanda(kept=lambda tokens, mask: tokens[~mask]))


@exercise.mistake("only the first text counts", hint="All leading dimensions of x are tokens: x.reshape(-1, inputs).")
def first_text(weight, x, mask=None):
    if x.dim() < 3:
        return right(weight, x, mask)
    return right(weight, x[0], None if mask is None else mask[0])


@exercise.mistake("each text has its norm, and these are added", hint="One norm over all tokens of all texts.")
def text_by_text(weight, x, mask=None):
    if x.dim() < 3:
        return right(weight, x, mask)
    rows = range(len(x))
    return torch.stack([right(weight, x[i], None if mask is None else mask[i]) for i in rows]).sum(0)


exercise.mistake(
    "squares are taken in the dtype of x, and overflow in float16",
    hint="700 squared is beyond float16, which ends at 65,504: x.float() first.",
)(wanda(wide=torch.clone, norm=lambda tokens: tokens.square().sum(0).sqrt()))

exercise.mistake("scores are left in float32", hint="Computing in float32 is right; give them the dtype of weight.")(
    wanda(back=False)
)

right = wanda()


@exercise.alternative
def by_einsum(weight, x, mask=None):
    tokens = x.double().reshape(-1, x.shape[-1])
    share = torch.ones(len(tokens), dtype=torch.double) if mask is None else mask.reshape(-1).double()
    squares = torch.einsum("ti,ti,t->i", tokens, tokens, share)
    return torch.einsum("oi,i->oi", weight.double().abs(), squares.sqrt()).to(weight.dtype)


@exercise.alternative
def by_running_sum(weight, x, mask=None):
    """Token by token, as one does who can't hold all of them."""
    squares = torch.zeros(x.shape[-1], dtype=torch.float64)
    tokens = x.reshape(-1, x.shape[-1])
    for token, counts in zip(
        tokens, mask.reshape(-1).tolist() if mask is not None else [True] * len(tokens), strict=True
    ):
        if counts:
            squares += token.double() ** 2
    return (weight.double() ** 2 * squares).sqrt().to(weight.dtype)
