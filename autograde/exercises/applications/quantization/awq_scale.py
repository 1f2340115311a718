"""`awq_scale(w, x, exponents, bits=4)`

AWQ's factors for a layer's input channels, by the exponent under which rounding harms its output least.
"""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case, same

exercise = Draft(
    "awq_scale",
    points=4,
    no_gradient="it is run once, after training",
    dtypes=(),
    hints=[
        "A weight that meets large inputs should be rounded finely. What does it do to its error if its column is made "
        "larger before it is rounded, and smaller again afterwards?",
        "For each exponent: s = |x| averaged over tokens, to that power, at least 1e-4, over the root of (largest * "
        "smallest). Round w * s row by row as in quantize_absmax, divide by s, and compare the layer's outputs.",
        "step = (w * s).abs().amax(1, keepdim=True) / most; near = (w * s / step).round() * step / s; loss = "
        "(x @ (near - w).T).square().mean(). Keep all losses, and s of the smallest.",
    ],
)


def layer(g, out, width, tokens, loud=1.0):
    """(w, x): channels whose inputs differ in size, of either sign."""
    w = torch.randn(out, width, generator=g, dtype=torch.float64)
    size = torch.exp(loud * torch.randn(width, generator=g, dtype=torch.float64))
    x = torch.randn(tokens, width, generator=g, dtype=torch.float64) + torch.randn(width, generator=g).double()
    return w, x * size


GRID = [0.0, 0.25, 0.5, 0.75, 1.0]


@exercise.cases
def awq_cases(g):
    yield case(*layer(g, 9, 12, 20, loud=1.5), GRID, label="4 bits")
    yield case(*layer(g, 7, 10, 15, loud=1.5), [0.1, 0.3, 0.6], 3, label="3 bits")
    yield case(*layer(g, 8, 6, 30, loud=2.0), [0.9, 0.2, 0.5, 0.0], bits=4, label="exponents in any order")
    w, x = layer(g, 6, 8, 10, loud=1.5)
    x[:, 3] = 0
    yield case(w, x, [0.5, 0.25], label="a channel that is always zero")
    yield case(*layer(g, 5, 7, 9), [0.0], label="exponent 0 alone")
    yield case(*layer(g, 5, 7, 9), [0.4], 5, label="one exponent, 5 bits")
    w, x = layer(g, 5, 9, 12, loud=1.5)
    w[2] = 0
    yield case(w, x, [0.3, 0.7], label="a row of zeros")
    w, x = layer(g, 3, 6, 8, loud=1.5)
    yield case(0 * w, x, [0.6, 0.3, 0.9], label="nothing but zeros: all losses are 0")
    yield case(*layer(g, 4, 1, 6), [0.5, 1.0], label="one channel")
    yield case(*layer(g, 3, 11, 1, loud=1.0), [0.2, 0.8], label="one token")
    yield case(*layer(g, 30, 40, 120, loud=1.5), GRID, 3, label="30 rows of 40")


@exercise.oracle
def grid_search(w, x, exponents, bits=4):
    """The search of AWQ's code, written out row by row in numpy."""
    import numpy as np

    weight, tokens, most = w.numpy(), x.numpy(), 2 ** (bits - 1) - 1
    wanted, best, losses = tokens @ weight.T, None, []
    for exponent in exponents:
        factor = np.maximum(np.mean(np.abs(tokens), axis=0) ** exponent, 1e-4)
        factor = factor / np.sqrt(factor.max() * factor.min())
        rows = []
        for row in weight * factor:
            step = np.abs(row).max() / most
            rows.append(np.rint(row / step) * step / factor if step > 0 else row)
        losses.append(np.square(tokens @ np.stack(rows).T - wanted).mean())
        if losses[-1] == min(losses):
            best = factor if losses.count(losses[-1]) == 1 else best
    return torch.from_numpy(best), torch.tensor(losses, dtype=torch.float64)


@exercise.law("There is a loss for each exponent, float64")
def loss_each(out, one, call):
    losses = out[1]
    good = isinstance(losses, torch.Tensor) and losses.dtype is torch.float64 and len(losses) == len(one.args[2])
    return good or f"they should be a float64 tensor of {len(one.args[2])}"


@exercise.law("The factors are float64, and the largest times the smallest is 1")
def balanced(out, one, call):
    s = out[0]
    if s.dtype is not torch.float64 or s.shape != one.args[1].shape[1:]:
        return f"they should be a float64 tensor of shape {tuple(one.args[1].shape[1:])}"
    return abs(float(s.max() * s.min()) - 1) < 1e-6 and bool((s > 0).all())


@exercise.law("Twice x has the same factors and four times the losses")
def size_of_x(out, one, call):
    w, x, *rest = one.args
    return None if "zero" in one.label else same(call(w, 2 * x, *rest, **one.kwargs), (out[0], 4 * out[1]))


def awq(
    importance=lambda x, w: x.abs().mean(0),
    floor=1e-4,
    balance=lambda s: s / (s.max() * s.min()).sqrt(),
    undo=lambda near, s: near / s,
    scaled=lambda w, s: w * s,
    size=lambda rows: rows.abs().amax(1, keepdim=True),
    most=lambda bits: 2 ** (bits - 1) - 1,
    rounding=torch.round,
    loss=lambda x, wrong: (x @ wrong.T).square().mean(),
    better=lambda new, old: new < old,
    result=lambda s, exponent, losses: (s, losses),
    power=lambda a, exponent: a**exponent,
):
    """`awq_scale` from its parts."""

    def awq_scale(w, x, exponents, bits=4):
        best, losses = None, []
        for exponent in exponents:
            s = balance(power(importance(x, w), exponent).clamp(min=floor))
            rows = scaled(w, s)
            step = size(rows) / most(bits)
            step = torch.where(step == 0, 1, step)
            near = undo((rounding(rows / step)).clamp(-most(bits), most(bits)) * step, s)
            found = float(loss(x, near - w))
            losses.append(found)
            if best is None or better(found, best[0]):
                best = found, s, exponent
        return result(best[1], best[2], torch.tensor(losses, dtype=torch.float64))

    return awq_scale


exercise.mistake(
    "the weights' error is compared, not the outputs'",
    hint="A small error in a weight that meets large inputs is worse: compare x @ w.T.",
)(awq(loss=lambda x, wrong: wrong.square().mean()))

exercise.mistake("the largest input counts, not the mean", hint="The mean of |x| over the tokens.")(
    awq(importance=lambda x, w: x.abs().amax(0))
)

exercise.mistake("the inputs are averaged with their signs", hint="|x| first, then the mean over tokens.")(
    awq(importance=lambda x, w: x.mean(0).abs())
)

exercise.mistake("the importance is the root of the mean square", hint="The mean of |x|: x.abs().mean(0).")(
    awq(importance=lambda x, w: x.square().mean(0).sqrt())
)

exercise.mistake(
    "the importance comes from the weights", hint="Activation-aware: how large are the *inputs* of each channel?"
)(awq(importance=lambda x, w: w.abs().mean(0)))

exercise.mistake("the weights are divided by s before rounding", hint="Make important columns larger: w * s.")(
    awq(scaled=lambda w, s: w / s, undo=lambda near, s: near * s)
)

exercise.mistake("the factors are not undone after rounding", hint="The layer sees the rounded w * s over s.")(
    awq(undo=lambda near, s: near)
)

exercise.mistake("one step serves the whole matrix", hint="Each row has its own: amax(1, keepdim=True).")(
    awq(size=lambda rows: rows.abs().amax().expand(len(rows), 1))
)

exercise.mistake(
    "each column has a step of its own", hint="Rows: the largest number of a row, so that its factors matter."
)(awq(size=lambda rows: rows.abs().amax(0, keepdim=True)))

exercise.mistake(
    "the factors are not balanced", hint="Divide by the root of largest times smallest, so that their product is 1."
)(awq(balance=lambda s: s))

exercise.mistake("the factors are divided by their mean", hint="By the root of largest times smallest.")(
    awq(balance=lambda s: s / s.mean())
)

exercise.mistake("the factors are divided by largest times smallest, without the root", hint="The root of it.")(
    awq(balance=lambda s: s / (s.max() * s.min()))
)

exercise.mistake("a channel of zeros has the factor 0", hint="At least 1e-4: nothing can be divided by 0 afterwards.")(
    awq(floor=1e-30)
)

exercise.mistake("the worst exponent is kept", hint="The smallest loss is the best.")(
    awq(better=lambda new, old: new > old)
)

exercise.mistake("of equal losses the last is kept", hint="The first, if several have it: <, not <=.")(
    awq(better=lambda new, old: new <= old)
)

exercise.mistake("the last exponent is kept", hint="Compare the losses.")(awq(better=lambda new, old: True))

exercise.mistake("the first exponent is kept", hint="Compare the losses.")(awq(better=lambda new, old: False))

exercise.mistake("the exponent comes back instead of the losses", hint="A loss for each exponent, in their order.")(
    awq(result=lambda s, exponent, losses: (s, torch.full_like(losses, exponent)))
)

exercise.mistake("the losses come back sorted", hint="In the order of the exponents.")(
    awq(result=lambda s, exponent, losses: (s, losses.sort().values))
)

exercise.mistake("only the smallest loss comes back", hint="A loss for each exponent.")(
    awq(result=lambda s, exponent, losses: (s, losses.min()))
)

exercise.mistake("the squared errors are summed, not averaged", hint="The mean over tokens and outputs.")(
    awq(loss=lambda x, wrong: (x @ wrong.T).square().sum())
)

exercise.mistake("errors are averaged without a square", hint="The squared error: .square().mean().")(
    awq(loss=lambda x, wrong: (x @ wrong.T).abs().mean())
)

exercise.mistake("the mean size is clamped, not its power", hint="To the power first, then at least 1e-4.")(
    awq(importance=lambda x, w: x.abs().mean(0).clamp(min=1e-4), floor=0.0)
)

exercise.mistake("the losses are float32", hint="float64, as w and x.")(
    awq(result=lambda s, exponent, losses: (s, losses.float()))
)

exercise.mistake("the scale is as if the codes had no sign", hint="most = 2 ** (bits - 1) - 1.")(
    awq(most=lambda bits: 2**bits - 1)
)

exercise.mistake("4 bits are taken, whatever is asked", hint="Is `bits` used?")(awq(most=lambda bits: 7))

exercise.mistake("the codes are cut off instead of rounded", hint="To the nearest: .round().")(
    awq(rounding=torch.trunc)
)

exercise.mistake("the importance is multiplied by the exponent", hint="To that power: a ** exponent.")(
    awq(power=lambda a, exponent: a * exponent if exponent else torch.ones_like(a))
)

exercise.mistake("1 / s comes back", hint="s is what the weights' columns are multiplied by.")(
    awq(result=lambda s, exponent, losses: (1 / s, losses))
)


@exercise.alternative
def by_trace(w, x, exponents, bits=4):
    """The loss from X^T X, all exponents first, then the least."""
    most, gram, mean = 2 ** (bits - 1) - 1, x.mT @ x, x.abs().mean(dim=0)
    tried = []
    for exponent in exponents:
        s = mean.pow(exponent).clamp_min(1e-4)
        s = s / (s.amax() * s.amin()) ** 0.5
        rows = w * s
        step = rows.abs().amax(-1, keepdim=True).div(most).clamp_min(1e-300)
        wrong = torch.round(rows / step) * step / s - w
        tried.append((torch.einsum("oi,ij,oj->", wrong, gram, wrong) / (len(x) * len(w)), s))
    return min(tried, key=lambda one: float(one[0]))[1], torch.stack([loss for loss, _ in tried])


@exercise.alternative
def by_stack(w, x, exponents, bits=4):
    """All exponents at once."""
    most, grid = 2 ** (bits - 1) - 1, torch.tensor(exponents, dtype=torch.float64)
    s = x.abs().mean(0)[None].pow(grid[:, None]).clamp(min=1e-4)
    s = s / (s.amax(1, keepdim=True) * s.amin(1, keepdim=True)).sqrt()
    rows = w[None] * s[:, None]
    step = rows.abs().amax(2, keepdim=True) / most
    near = torch.nan_to_num((rows / step).round() * step) / s[:, None]
    loss = ((near - w[None]) @ x.T).square().mean((1, 2))
    return s[int(loss.argmin())], loss
