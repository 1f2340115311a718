"""`swiglu(x, w_gate, w_up, w_down)`

The feed-forward part of LLaMA: a gated linear unit with SiLU, silu(s) = s * sigmoid(s).
"""

from __future__ import annotations

import types

import torch
import torch.nn.functional as F

from autograde.borrowed import borrowed
from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import randn

exercise = Draft(
    "swiglu",
    points=2,
    forbid=["transformers"],
    rtol=1e-3,
    atol=1e-4,
    hints=[
        "Two projections of the same x, one activation, one product, one projection back.",
        "The matrices are stored as nn.Linear stores them, [out, in]: x @ w_gate.T. SiLU is s * sigmoid(s).",
        "gate = x @ w_gate.T; return (gate * gate.sigmoid() * (x @ w_up.T)) @ w_down.T",
    ],
)


@exercise.cases
def swiglu_cases(g):
    def some(*shape, hidden, scale=1.0):
        d = shape[-1]
        return randn(g, *shape) * scale, randn(g, hidden, d), randn(g, hidden, d), randn(g, d, hidden)

    yield case(*some(2, 3, 4, hidden=6), label="a batch")
    yield case(*some(5, hidden=3), label="a single vector, narrower inside than outside")
    yield case(*some(3, 4, hidden=4), label="square matrices")
    yield case(*some(2, 1, 3, 2, hidden=5), label="two batch dimensions")
    yield case(*some(4, 3, hidden=8, scale=30.0), label="large values")
    yield case(*some(1, 1, hidden=1), label="one number, one hidden unit")
    yield case(
        -randn(g, 3, 2).abs() * 20, randn(g, 4, 2).abs(), randn(g, 4, 2), randn(g, 2, 4), label="gates far below zero"
    )
    high = randn(g, 3, 2).abs() * 20 + 50, randn(g, 4, 2).abs() + 1
    yield case(*high, randn(g, 4, 2), randn(g, 2, 4), label="gates far above zero")
    signs = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    both = signs * (randn(g, 4, 2).abs() * 20 + 200), randn(g, 4, 2).abs() + 1
    yield case(*both, randn(g, 4, 2), randn(g, 2, 4), label="scores of hundreds, of both signs")
    yield case(torch.zeros(2, 3), *some(3, hidden=4)[1:], label="x is zero")
    yield case(*some(3, 130, 4, hidden=150), label="many tokens, many hidden units")
    wide = some(4, 3, hidden=6)
    yield case(wide[0].T.contiguous().T, *(w.T.contiguous().T for w in wide[1:]), label="not contiguous")


@exercise.oracle
def llama_mlp(x, w_gate, w_up, w_down):
    """LLaMA's forward pass, over the given matrices instead of parameters, so that gradients reach these."""

    def layer(weight):
        return lambda x: F.linear(x, weight)

    layers = {"gate_proj": layer(w_gate), "up_proj": layer(w_up), "down_proj": layer(w_down), "act_fn": F.silu}
    mlp = borrowed("transformers.models.llama.modeling_llama", "LlamaMLP")
    return mlp.forward(types.SimpleNamespace(**layers), x)


@exercise.law("The result is linear in w_up")
def linear_in_up(out, one, call):
    x, w_gate, w_up, w_down = one.args
    return same(call(x, w_gate, -3 * w_up, w_down), -3 * out, rtol=1e-3, atol=1e-3)


@exercise.law("A gate far above zero is open, one far below is shut")
def open_gate_is_the_identity(out, one, call):
    """With scores far above zero SiLU hands its input on, with scores far below it gives nothing."""
    x, d = torch.full((1, 2), 60.0, dtype=one.args[0].dtype), torch.eye(2, dtype=one.args[0].dtype)
    return same(call(x, d, d, d), x * x) and same(call(-x, d, d, d), 0 * x)


exercise.law("Gives back the dtype of x")(keeps_dtype)


def _gated(mix):
    """An MLP whose hidden values are `mix(gate scores, up values)`."""

    def mlp(x, w_gate, w_up, w_down):
        return mix(x @ w_gate.T, x @ w_up.T) @ w_down.T

    return mlp


exercise.mistake(
    "SiLU acts on the up part instead of the gate", hint="silu(x W_gate) * (x W_up): the gate gets the SiLU."
)(_gated(lambda gate, up: gate * F.silu(up)))

exercise.mistake("SiLU acts on both parts", hint="Only the gate gets it.")(
    _gated(lambda gate, up: F.silu(gate) * F.silu(up))
)

exercise.mistake("SiLU acts on the product of the two", hint="First the SiLU of the gate, then the product.")(
    _gated(lambda gate, up: F.silu(gate * up))
)


@exercise.mistake(
    "SiLU comes after the down projection", hint="The gate is inside: between the first two matrices and the last."
)
def silu_after_down(x, w_gate, w_up, w_down):
    return F.silu((x @ w_gate.T * (x @ w_up.T)) @ w_down.T)


exercise.mistake("the gate is a sigmoid", hint="That is the first GLU (Dauphin et al. 2017). Swish is x * sigmoid(x).")(
    _gated(lambda gate, up: torch.sigmoid(gate) * up)
)

exercise.mistake("the gate is a GELU", hint="That is GEGLU. SiLU is x * sigmoid(x).")(
    _gated(lambda gate, up: F.gelu(gate) * up)
)

exercise.mistake("the gate is GELU's tanh approximation", hint="That is GEGLU. Here the gate is SiLU, x * sigmoid(x).")(
    _gated(lambda gate, up: F.gelu(gate, approximate="tanh") * up)
)

exercise.mistake("the gate is a ReLU", hint="That is ReGLU. SiLU is x * sigmoid(x).")(
    _gated(lambda gate, up: F.relu(gate) * up)
)

exercise.mistake(
    "the sigmoid's argument is multiplied by 1.702", hint="That makes SiLU look like GELU. SiLU itself has beta = 1."
)(_gated(lambda gate, up: gate * torch.sigmoid(1.702 * gate) * up))

exercise.mistake("the gate is a softmax", hint="Hidden units don't compete: each has its own SiLU.")(
    _gated(lambda gate, up: gate.softmax(-1) * up)
)

exercise.mistake("the gate is a tanh", hint="Swish is x * sigmoid(x).")(_gated(lambda gate, up: torch.tanh(gate) * up))

exercise.mistake(
    "the gate's scores take the place of the up part",
    hint="Two projections of x: one through SiLU, the other, with w_up, as it is.",
)(_gated(lambda gate, up: F.silu(gate) * gate))

exercise.mistake("the gate has no activation at all", hint="silu(gate) * up.")(_gated(lambda gate, up: gate * up))

exercise.mistake("the sigmoid gets the negative of its argument", hint="x * sigmoid(x), and not sigmoid(-x).")(
    _gated(lambda gate, up: gate * torch.sigmoid(-gate) * up)
)

exercise.mistake(
    "the gate is missing: only W_up and a SiLU", hint="That is an ordinary MLP. A gated one multiplies two projections."
)(_gated(lambda gate, up: F.silu(up)))

exercise.mistake(
    "the up part is missing: only W_gate and a SiLU",
    hint="That is an ordinary MLP. A gated one multiplies two projections.",
)(_gated(lambda gate, up: F.silu(gate)))

exercise.mistake("gate and up are added", hint="They are multiplied, entry by entry.")(
    _gated(lambda gate, up: F.silu(gate) + up)
)

gated_by_silu = _gated(lambda gate, up: F.silu(gate) * up)


@exercise.mistake("the matrices aren't transposed", hint="nn.Linear stores [out, in]: x @ w_gate.T, and so on.")
def not_transposed(x, w_gate, w_up, w_down):
    return (F.silu(x @ w_gate) * (x @ w_up)) @ w_down


exercise.mistake("exp is taken without protection, and overflows", hint="torch.sigmoid(s) is safe for every s.")(
    _gated(lambda gate, up: gate * gate.exp() / (1 + gate.exp()) * up)
)

exercise.mistake(
    "exp(-s) overflows, and the gradient becomes NaN on the way back",
    hint="1 / (1 + exp(-s)) is right, and its derivative is 0 times infinity. torch.sigmoid(s) is safe for every s.",
)(_gated(lambda gate, up: gate / (1 + torch.exp(-gate)) * up))

exercise.mistake("no gradient goes through the gate", hint="Gate and up part are learned alike: detach neither.")(
    _gated(lambda gate, up: F.silu(gate).detach() * up)
)


@exercise.mistake("a softmax comes at the end", hint="The result is a sum of hidden units, as w_down gives it.")
def softmax_at_the_end(x, w_gate, w_up, w_down):
    return gated_by_silu(x, w_gate, w_up, w_down).softmax(-1)


@exercise.mistake("x is added to the result", hint="The residual is added outside of this function.")
def with_residual(x, w_gate, w_up, w_down):
    return x + gated_by_silu(x, w_gate, w_up, w_down)


@exercise.mistake(
    "the result is float32, whatever x is", hint="Leave the dtype alone: x, the matrices and the result share it."
)
def silu_in_float32(x, w_gate, w_up, w_down):
    return gated_by_silu(x.float(), w_gate.float(), w_up.float(), w_down.float())


exercise.alternative(gated_by_silu)

exercise.alternative(_gated(lambda gate, up: gate * torch.sigmoid(gate) * up))


@exercise.alternative
def swiglu_fused(x, w_gate, w_up, w_down):
    """Both projections as one matrix, as inference engines do."""
    gate, up = F.linear(x, torch.cat([w_gate, w_up])).chunk(2, dim=-1)
    return F.linear(up * F.silu(gate), w_down)


@exercise.alternative
def swiglu_by_einsum(x, w_gate, w_up, w_down):
    gate = torch.einsum("...d,hd->...h", x, w_gate)
    return torch.einsum("...h,hd,...d,eh->...e", gate * torch.special.expit(gate), w_up, x, w_down)
