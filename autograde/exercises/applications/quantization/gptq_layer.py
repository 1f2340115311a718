"""`gptq_layer(w, hessian, scale, bits=4, damp=0.01)`

GPTQ's codes for a layer: column after column, each error made good by the columns to come.
"""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case
from autograde.exercises.shared import pick

exercise = Draft(
    "gptq_layer",
    points=5,
    no_gradient="it is run once, after training",
    dtypes=(),
    hints=[
        "Rounding a column makes an error in the layer's output. Which other columns can still make it good, and which "
        "can't any more?",
        "For the columns from j on, with inv the inverse of the damped hessian[j:, j:]: rest -= error * inv[0, 1:] / "
        "inv[0, 0], the error of each row for all columns that follow.",
        "One inversion is enough: u = torch.linalg.cholesky(torch.linalg.inv(h), upper=True). Then, on a copy of w: "
        "e = (w[:, j] - code * step) / u[j, j]; w[:, j + 1 :] -= e[:, None] * u[j, j + 1 :].",
    ],
)


def inputs(g, tokens, width, mix=1.0):
    """A layer's inputs: channels that go together, and of which some are larger."""
    x = torch.randn(tokens, width, generator=g, dtype=torch.float64)
    mixed = x @ torch.randn(width, width, generator=g, dtype=torch.float64) * mix + 0.3 * x
    return mixed * torch.exp(torch.randn(width, generator=g, dtype=torch.float64))


def layer(g, out, width, bits, tokens=None, cut=1.0, mix=1.0):
    """(w, hessian, scale): with `cut` below 1 the largest weights of a row lie beyond its codes."""
    w = torch.randn(out, width, generator=g, dtype=torch.float64)
    w = w * torch.exp(torch.randn(out, 1, generator=g, dtype=torch.float64))
    x = inputs(g, tokens or 4 * width, width, mix)
    scale = cut * w.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    return w, x.T @ x, scale


@exercise.cases
def gptq_cases(g):
    yield case(*layer(g, 5, 8, 4), label="4 bits")
    yield case(*layer(g, 4, 7, 3), 3, label="3 bits")
    yield case(*layer(g, 6, 9, 4, cut=0.5), bits=4, label="weights beyond the codes")
    yield case(*layer(g, 3, 12, 4, tokens=5), label="fewer tokens than columns")
    yield case(*layer(g, 12, 16, 4), 4, 0.5, label="much damping")
    yield case(*layer(g, 10, 14, 5), bits=5, damp=0.1, label="5 bits, damping 0.1")
    w, hessian, scale = layer(g, 4, 6, 4)
    yield case(w, hessian.diagonal().diag(), scale, label="channels that don't go together")
    w, hessian, scale = layer(g, 5, 7, 4)
    at = pick(g, 1, 5)
    hessian[at], hessian[:, at] = 0, 0
    yield case(w, hessian, scale, label="a channel that is always zero")
    yield case(*layer(g, 3, 1, 4), label="one column")
    yield case(*layer(g, 1, 6, 4), label="one row")
    yield case(*layer(g, 4, 9, 8), 8, label="8 bits")
    yield case(*layer(g, 24, 32, 3, tokens=100), 3, label="24 rows of 32")
    w, hessian, scale = layer(g, 5, 8, 4)
    yield case(w, hessian / (10 * hessian.diagonal().mean()), scale, label="small inputs")


@exercise.oracle
def optimal_brain_surgeon(w, hessian, scale, bits=4, damp=0.01):
    """Hassibi and Stork's rule, with the inverse of what is still free worked out again for each column."""
    most = 2 ** (bits - 1) - 1
    h = hessian + damp * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)
    rest, codes = w.clone(), []
    for j in range(w.shape[1]):
        inverse = torch.linalg.inv(h[j:, j:])
        code = (rest[:, :1] / scale).round().clamp(-most, most)
        error = rest[:, :1] - code * scale
        codes.append(code)
        rest = rest[:, 1:] - error * inverse[:1, 1:] / inverse[0, 0]
    return torch.cat(codes, 1).to(torch.int8)


def _given(one):
    bits = one.args[3] if len(one.args) > 3 else one.kwargs.get("bits", 4)
    return bits, 2 ** (bits - 1) - 1


@exercise.law("The codes are int8, none is larger than 2 ** (bits - 1) - 1, and some are that large")
def within(out, one, call):
    if out.dtype is not torch.int8:
        return f"they should be int8, and are {out.dtype}"
    most = _given(one)[1]
    largest = int(out.abs().max())
    return largest <= most and (largest > most // 2 or f"the largest is {largest} of {most}")


@exercise.law("Where channels don't go together it is plain rounding")
def diagonal_is_rounding(out, one, call):
    w, hessian, scale = one.args[:3]
    if not torch.equal(hessian, hessian.diagonal().diag()):
        return None
    most = _given(one)[1]
    return bool((out == (w / scale).round().clamp(-most, most)).all())


@exercise.law("Of 24 rows the output is nearer to the layer's than by plain rounding")
def beats_rounding(out, one, call):
    w, hessian, scale = one.args[:3]
    if len(w) < 24 or out.shape != w.shape:
        return None if len(w) < 24 else False
    most = _given(one)[1]

    def loss(codes):
        wrong = codes * scale - w
        return float(((wrong @ hessian) * wrong).sum())

    plain = loss((w / scale).round().clamp(-most, most))
    if loss(optimal_brain_surgeon(*one.args, **one.kwargs)) >= plain:
        return None  # it wins on average: 2 of 300 draws are such that it doesn't
    return loss(out) < plain


@exercise.law("Every row is quantized by itself")
def rows_alone(out, one, call):
    w, hessian, scale = one.args[:3]
    if len(w) != 5:
        return None
    alone = call(w[2:3], hessian, scale[2:3], *one.args[3:], **one.kwargs)
    return bool(torch.equal(torch.as_tensor(alone), out[2:3]))


def damped(hessian, damp):
    return hessian + damp * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)


def upper(h):
    return torch.linalg.cholesky(torch.linalg.inv(h), upper=True)


def gptq(
    dampen=damped,
    factor=upper,
    spread=lambda error, u, j: error[:, None] / u[j, j] * u[j, j + 1 :],
    rounding=torch.round,
    most=lambda bits: 2 ** (bits - 1) - 1,
    least=lambda most: -most,
    order=range,
    steps=lambda scale: scale,
    dtype=torch.int8,
    bits_of=lambda bits: bits,
):
    """`gptq_layer` from its parts. `spread` gives what is taken off the columns that follow."""

    def gptq_layer(w, hessian, scale, bits=4, damp=0.01):
        bits, w, step = bits_of(bits), w.clone(), steps(scale).squeeze(1)
        u, codes = factor(dampen(hessian, damp)), torch.zeros_like(w)
        for j in order(w.shape[1]):
            codes[:, j] = rounding(w[:, j] / step).clamp(least(most(bits)), most(bits))
            error = w[:, j] - codes[:, j] * step
            w[:, j + 1 :] -= spread(error, u, j)
        return codes.to(dtype)

    return gptq_layer


exercise.mistake(
    "every column is rounded by itself",
    hint="That is round-to-nearest: the columns that follow have to move. (u[j, j + 1:] of a lower factor is 0.)",
)(gptq(spread=lambda error, u, j: 0))

exercise.mistake(
    "the inverse of the whole hessian is used in all steps",
    hint="What is fixed already can't move: in step j only the columns from j on count, and their inverse is another.",
)(gptq(factor=torch.linalg.inv))

exercise.mistake(
    "the hessian is used instead of its inverse", hint="The inverse says how the others best make an error good."
)(gptq(factor=lambda h: h))

exercise.mistake(
    "the hessian's own Cholesky factor is used", hint="Invert first, then take the upper Cholesky factor."
)(gptq(factor=lambda h: torch.linalg.cholesky(h, upper=True)))

exercise.mistake(
    "the error is divided by the root of inv[j, j] alone",
    hint="With the inverse one divides by inv[j, j], with its Cholesky factor u by u[j, j].",
)(gptq(spread=lambda error, u, j: error[:, None] * u[j, j + 1 :]))

exercise.mistake("the error is not divided by inv[j, j]", hint="error * inv[j, k] / inv[j, j].")(
    gptq(spread=lambda error, u, j: error[:, None] * u[j, j] * u[j, j + 1 :])
)

exercise.mistake(
    "the error is divided by the square of the diagonal",
    hint="With the inverse one divides by inv[0, 0], with its Cholesky factor by u[j, j]: once.",
)(gptq(spread=lambda error, u, j: error[:, None] / u[j, j] ** 2 * u[j, j + 1 :]))

exercise.mistake("the error has the wrong sign", hint="error = w - code * scale, and it is taken off what follows.")(
    gptq(spread=lambda error, u, j: -error[:, None] / u[j, j] * u[j, j + 1 :])
)

exercise.mistake(
    "only the next column makes the error good", hint="Every later column k is lessened, each by its own share."
)(gptq(spread=lambda error, u, j: error[:, None] / u[j, j] * u[j, j + 1 :] * (torch.arange(len(u) - j - 1) == 0)))

exercise.mistake("nothing is added to the diagonal", hint="`damp` times the mean of the diagonal is added to it.")(
    gptq(
        dampen=lambda h, damp: h,
        factor=lambda h: upper(h + 1e-9 * h.diagonal().mean() * torch.eye(len(h), dtype=h.dtype)),
    )
)

exercise.mistake("`damp` times the sum of the diagonal is added to it", hint="Times its mean, not its sum.")(
    gptq(dampen=lambda h, damp: damped(h, damp * len(h)))
)

exercise.mistake("`damp` itself is added to the diagonal", hint="Times the mean of the diagonal.")(
    gptq(
        dampen=lambda h, damp: h + damp * torch.eye(len(h), dtype=h.dtype),
    )
)

exercise.mistake(
    "each number of the diagonal is damped by its own size",
    hint="The same for all: `damp` times the mean of the diagonal.",
)(gptq(dampen=lambda h, damp: h + damp * h.diagonal().diag() + 1e-9 * h.diagonal().mean() * torch.eye(len(h)).double()))

exercise.mistake("the damping is 0.01, whatever is asked", hint="Is `damp` used?")(
    gptq(dampen=lambda h, damp: damped(h, 0.01))
)

exercise.mistake("4 bits are taken, whatever is asked", hint="Is `bits` used?")(gptq(bits_of=lambda bits: 4))

exercise.mistake("the codes go down to -2 ** (bits - 1)", hint="Symmetric: from -(2 ** (bits - 1) - 1) on.")(
    gptq(least=lambda most: -most - 1)
)

exercise.mistake(
    "the codes go to 2 ** (bits - 1) on both sides", hint="From -(2 ** (bits - 1) - 1) to 2 ** (bits - 1) - 1."
)(gptq(most=lambda bits: 2 ** (bits - 1)))

exercise.mistake("the codes are cut off instead of rounded", hint="To the nearest: .round().")(
    gptq(rounding=torch.trunc)
)

exercise.mistake("the scale of the first row serves all rows", hint="`scale` is [out, 1]: a step for each row.")(
    gptq(steps=lambda scale: scale[:1].expand_as(scale))
)

exercise.mistake("the codes are left as floating-point numbers", hint="Whole numbers: .to(torch.int8).")(
    gptq(dtype=torch.float64)
)


@exercise.mistake("the columns go from right to left", hint="From the first column to the last.")
def right_to_left(w, hessian, scale, bits=4, damp=0.01):
    return gptq()(w.flip(1), hessian.flip(0, 1), scale, bits, damp).flip(1)


@exercise.mistake(
    "the weights, not the codes, come back", hint="The codes: whole numbers that times the scale are the weights."
)
def weights_back(w, hessian, scale, bits=4, damp=0.01):
    return gptq(dtype=torch.float64)(w, hessian, scale, bits, damp) * scale


@exercise.mistake(
    "an error is measured against the weights as they came",
    hint="A column has moved when its turn comes: its error is against what it is by then.",
)
def against_the_first(w, hessian, scale, bits=4, damp=0.01):
    most, u, now, codes = 2 ** (bits - 1) - 1, upper(damped(hessian, damp)), w.clone(), torch.zeros_like(w)
    for j in range(w.shape[1]):
        codes[:, j] = (now[:, j] / scale[:, 0]).round().clamp(-most, most)
        now[:, j + 1 :] -= (w[:, j] - codes[:, j] * scale[:, 0])[:, None] / u[j, j] * u[j, j + 1 :]
    return codes.to(torch.int8)


@exercise.mistake("codes are not clamped", hint="A column that made errors good may lie beyond the codes: clamp it.")
def unclamped(w, hessian, scale, bits=4, damp=0.01):
    return gptq(most=lambda bits: 127)(w, hessian, scale, bits, damp)


exercise.alternative(gptq())


@exercise.alternative
def by_blocks(w, hessian, scale, bits=4, damp=0.01):
    """As in the paper's code: blocks of columns, and what follows a block is moved once."""
    most, u, w, codes = 2 ** (bits - 1) - 1, upper(damped(hessian, damp)), w.clone(), torch.zeros_like(w)
    for start in range(0, w.shape[1], 4):
        stop, errors = min(start + 4, w.shape[1]), []
        for j in range(start, stop):
            codes[:, j] = (w[:, j] / scale[:, 0]).round().clamp(-most, most)
            errors.append((w[:, j] - codes[:, j] * scale[:, 0]) / u[j, j])
            w[:, j:stop] -= torch.outer(errors[-1], u[j, j:stop])
        w[:, stop:] -= torch.stack(errors, 1) @ u[start:stop, stop:]
    return codes.to(torch.int8)


@exercise.alternative
def by_elimination(w, hessian, scale, bits=4, damp=0.01):
    """As in Optimal Brain Compression: the inverse loses a row and a column in each step by elimination."""
    most, inverse = 2 ** (bits - 1) - 1, torch.linalg.inv(damped(hessian, damp))
    w, codes = w.clone(), torch.zeros_like(w, dtype=torch.int8)
    for j in range(w.shape[1]):
        codes[:, j] = (w[:, j] / scale.flatten()).round().clamp(-most, most).to(torch.int8)
        error = (w[:, j] - codes[:, j] * scale.flatten()) / inverse[j, j]
        w -= torch.outer(error, inverse[j])
        inverse = inverse - torch.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    return codes
