"""`feed_forward(x, w1, b1, w2, b2, activation='relu')`

The feed-forward sub-layer: act(x w1 + b1) w2 + b2; no residual, no norm, no dropout.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import randn
from autograde.exercises.transformer.encoder_decoder.shared import (
    ACTIVATIONS,
    feed_forward,
    feed_forward_by_linear,
    ff_weights,
)

exercise = Draft(
    "feed_forward",
    points=2,
    atol=1e-4,
    dtypes=[torch.float64],
    hints=[
        "Widen, bend, narrow: three steps, and nothing looks at another token.",
        "h = x @ w1 + b1 is [..., d_ff]. Then the activation, then w2 and b2.",
        "bend = {'relu': F.relu, 'gelu': F.gelu}[activation]; return bend(x @ w1 + b1) @ w2 + b2",
    ],
)


@exercise.cases
def feed_forward_cases(g):
    yield case(randn(g, 3, 4), *ff_weights(g, 4, 16), label="one sequence")
    yield case(randn(g, 2, 5, 6), *ff_weights(g, 6, 3), label="narrower inside")
    yield case(randn(g, 2, 3, 4, 8), *ff_weights(g, 8, 12), activation="gelu", label="GELU, two batch dims")
    yield case(randn(g, 1, 2), *ff_weights(g, 2, 7), label="one token")
    yield case(randn(g, 3, 1), *ff_weights(g, 1, 4), "gelu", label="width one, GELU")
    yield case(randn(g, 4, 6), *ff_weights(g, 6, 6), label="as wide inside as outside")
    yield case(torch.zeros(2, 4), *ff_weights(g, 4, 9), label="zeros")
    yield case(randn(g, 3, 4) * 40, *ff_weights(g, 4, 8), label="large numbers")
    yield case(randn(g, 5, 2, 4).transpose(0, 1), *ff_weights(g, 4, 8), activation="gelu", label="not contiguous")
    yield case(randn(g, 2, 130, 7), *ff_weights(g, 7, 24, 0.3), label="130 tokens")
    w1, b1, w2, b2 = ff_weights(g, 5, 40)
    yield case(randn(g, 2, 4, 5), w1, b1, 3 * w2, b2, activation="gelu", label="GELU, many hidden units")


@exercise.oracle
def torch_feed_forward(x, w1, b1, w2, b2, activation="relu"):
    """torch's own functions in float64."""
    wide, w1, b1, w2, b2 = (v.double() for v in (x, w1, b1, w2, b2))
    act = {"relu": F.relu, "gelu": F.gelu}[activation]
    return F.linear(act(F.linear(wide, w1.mT, b1)), w2.mT, b2).to(x.dtype)


@exercise.law("With w2 = 0 nothing but b2 comes out")
def zero_weights_leave_the_bias(out, one, call):
    x, w1, b1, w2, b2 = one.args[:5]
    return same(call(x, w1, b1, torch.zeros_like(w2), b2), b2.expand(x.shape))


@exercise.law("It bends: ReLU of h and ReLU of -h make |h| together")
def not_linear(out, one, call):
    """relu(h) + relu(-h) is |h|."""
    x, w1, b1, w2, b2 = one.args[:5]
    x = x / x.abs().amax().clamp(min=1)
    no1, no2 = torch.zeros_like(b1), torch.zeros_like(b2)
    both = call(x, w1, no1, w2, no2).double() + call(-x, w1, no1, w2, no2).double()
    return same(both, (x @ w1).abs().double() @ w2.double(), rtol=1e-3, atol=1e-3)


@exercise.law("Each token is worked on by itself")
def token_by_token(out, one, call):
    x, *weights = one.args
    if x.shape[-2] == 1:
        return None
    return same(call(x[..., :1, :], *weights, **one.kwargs), out[..., :1, :], atol=1e-3)


exercise.law("The result has the dtype of x")(keeps_dtype)


@exercise.mistake(
    "there is no activation between the two matrices",
    hint="Two linear maps in a row are one linear map. The activation stands between them.",
)
def no_activation(x, w1, b1, w2, b2, activation="relu"):
    return (x @ w1 + b1) @ w2 + b2


@exercise.mistake(
    "the activation stands after the second matrix",
    hint="The network's result may be negative: the activation belongs between the two matrices.",
)
def activation_at_the_end(x, w1, b1, w2, b2, activation="relu"):
    return ACTIVATIONS[activation](no_activation(x, w1, b1, w2, b2))


@exercise.mistake(
    "the activation is used twice, after each matrix", hint="Only the inner layer is bent. The result may be negative."
)
def activation_twice(x, w1, b1, w2, b2, activation="relu"):
    return ACTIVATIONS[activation](feed_forward(x, w1, b1, w2, b2, activation))


@exercise.mistake("the activation stands before the first matrix", hint="First widen with w1 and b1, then bend.")
def activation_first(x, w1, b1, w2, b2, activation="relu"):
    return no_activation(ACTIVATIONS[activation](x), w1, b1, w2, b2)


@exercise.mistake(
    "the activation is always ReLU, whatever is passed",
    hint="`activation` is a parameter: BERT and GPT-2 ask for GELU.",
)
def always_relu(x, w1, b1, w2, b2, activation="relu"):
    return feed_forward(x, w1, b1, w2, b2)


@exercise.mistake(
    "GELU is its tanh approximation",
    hint="Exact GELU is h * Phi(h), Phi being the normal distribution function: F.gelu(h).",
)
def gelu_by_tanh(x, w1, b1, w2, b2, activation="relu"):
    if activation == "relu":
        return feed_forward(x, w1, b1, w2, b2)
    return F.gelu(x @ w1 + b1, approximate="tanh") @ w2 + b2


@exercise.mistake(
    "GELU is its sigmoid approximation", hint="Exact GELU is h * Phi(h), Phi being the normal distribution function."
)
def gelu_by_sigmoid(x, w1, b1, w2, b2, activation="relu"):
    h = x @ w1 + b1
    return (h.relu() if activation == "relu" else h * torch.sigmoid(1.702 * h)) @ w2 + b2


@exercise.mistake("ReLU and GELU are swapped", hint="`activation` names what is asked for.")
def activations_swapped(x, w1, b1, w2, b2, activation="relu"):
    return feed_forward(x, w1, b1, w2, b2, "gelu" if activation == "relu" else "relu")


@exercise.mistake("the activation is always GELU, whatever is passed", hint="`activation` is a parameter.")
def always_gelu(x, w1, b1, w2, b2, activation="relu"):
    return feed_forward(x, w1, b1, w2, b2, "gelu")


@exercise.mistake("everything is computed in float32, also for float64", hint="Don't cast: x has its dtype.")
def in_float32(x, w1, b1, w2, b2, activation="relu"):
    return feed_forward(*(v.float() for v in (x, w1, b1, w2, b2)), activation)


@exercise.mistake("b1 is missing", hint="Both matrices have a bias.")
def inner_bias_missing(x, w1, b1, w2, b2, activation="relu"):
    return feed_forward(x, w1, 0 * b1, w2, b2, activation)


@exercise.mistake(
    "b1 is added after the activation",
    hint="The bias decides where a unit switches on, so it is added before the activation.",
)
def inner_bias_after_activation(x, w1, b1, w2, b2, activation="relu"):
    return (ACTIVATIONS[activation](x @ w1) + b1) @ w2 + b2


@exercise.mistake("b2 is missing", hint="Both matrices have a bias.")
def outer_bias_missing(x, w1, b1, w2, b2, activation="relu"):
    return feed_forward(x, w1, b1, w2, 0 * b2, activation)


@exercise.mistake("the residual x is added here already", hint="The layer around this network adds the residual.")
def with_residual(x, w1, b1, w2, b2, activation="relu"):
    return x + feed_forward(x, w1, b1, w2, b2, activation)


@exercise.mistake(
    "the matrices are transposed, as nn.Linear stores them",
    hint="Here w1 is [d, d_ff] as in the paper: x @ w1. F.linear(x, w) is x @ w.T.",
)
def transposed_weights(x, w1, b1, w2, b2, activation="relu"):
    return ACTIVATIONS[activation](F.linear(x, w1, b1)) @ w2.mT + b2


@exercise.mistake(
    "all tokens are averaged first", hint="The network is applied to each token separately. x @ w1 does that by itself."
)
def averaged_tokens(x, w1, b1, w2, b2, activation="relu"):
    return feed_forward(x.mean(-2, keepdim=True).expand(x.shape), w1, b1, w2, b2, activation)


exercise.alternative(feed_forward_by_linear)


@exercise.alternative
def feed_forward_by_loop(x, w1, b1, w2, b2, activation="relu"):
    rows = [feed_forward(row, w1, b1, w2, b2, activation) for row in x.reshape(-1, x.shape[-1])]
    return torch.stack(rows, 1).mT.reshape(x.shape)
