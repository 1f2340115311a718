"""`performer_features(x, w)`: Positive random features, whose dot products estimate exp(x · y)."""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import randn

exercise = Draft(
    "performer_features",
    points=3,
    rtol=1e-3,
    atol=1e-8,
    dtypes=[torch.float64],
    hints=[
        "The exponent has two parts: one from w and x, one from x alone.",
        "x @ w.T is [..., m]. x.square().sum(-1, keepdim=True) / 2 fits to it.",
        "torch.exp(x @ w.T - x.square().sum(-1, keepdim=True) / 2) / w.shape[0] ** 0.5",
    ],
)


@exercise.cases
def performer_cases(g):
    yield case(randn(g, 3, 4), randn(g, 5, 4), label="five features")
    yield case(randn(g, 2, 3, 6) * 0.5, randn(g, 8, 6), label="a batch")
    yield case(randn(g, 2, 3, 4, 2), randn(g, 3, 2), label="two batch dimensions")
    yield case(randn(g, 1, 4), randn(g, 1, 4), label="one row, one feature")
    yield case(randn(g, 5, 1) * 2, randn(g, 4, 1), label="width one")
    yield case(randn(g, 4), randn(g, 6, 4), label="a single vector")
    yield case(randn(g, 4, 4), randn(g, 4, 4), label="every size is four")
    yield case(randn(g, 2, 16), randn(g, 3, 16) * 2, label="wide rows")
    yield case(torch.zeros(2, 3), randn(g, 4, 3), label="zeros")
    yield case(randn(g, 3, 2) * 4, randn(g, 5, 2), label="large inputs")
    w = 5 * F.normalize(randn(g, 4, 6), dim=-1)
    yield case(w[:3] + 0.01 * randn(g, 3, 6), w, label="a row for each of the first vectors: features of thousands")
    away = 14 * F.normalize(randn(g, 3, 8), dim=-1)
    yield case(away, torch.cat([away[:2] * 0.6, randn(g, 2, 8)]), label="exp(w · x) alone would overflow")
    yield case(randn(g, 130, 3), randn(g, 140, 3), label="many rows and features")
    yield case(randn(g, 4, 2, 3).transpose(0, 1), randn(g, 3, 5).T, label="not contiguous")


@exercise.oracle
def density_ratio(x, w):
    """exp(w·x - |x|²/2) is how much likelier w is under a normal distribution around x than under one around 0."""
    x, wide = x.double(), w.double()
    one = torch.ones((), dtype=torch.float64)
    around = torch.distributions.Independent(torch.distributions.Normal(x.unsqueeze(-2), one), 1)
    zero = torch.distributions.Independent(torch.distributions.Normal(torch.zeros_like(x).unsqueeze(-2), one), 1)
    return ((around.log_prob(wide) - zero.log_prob(wide)).exp() / w.shape[0] ** 0.5).to(w.dtype)


@exercise.law("Features are positive")
def is_positive(out, one, call):
    return bool((out >= 0).all() and (call(one.args[0] / 4, one.args[1]) > 0).all())


@exercise.law("Zeros give 1 / sqrt(m) everywhere")
def zeros_give_one_number(out, one, call):
    x, w = one.args
    flat = call(torch.zeros_like(x), w)
    return same(flat, torch.full_like(flat, w.shape[0] ** -0.5))


@exercise.law("Each feature twice: the same products of rows")
def repeating_changes_no_estimate(out, one, call):
    """Each feature twice: the products of two rows stay what they were."""
    x, w = one.args
    twice = call(x, torch.cat([w, w]))
    return same(twice.double().square().sum(-1), out.double().square().sum(-1), rtol=1e-3, atol=1e-4)


@functools.lru_cache
def _normal_points(d):
    """512 points spread like a normal distribution, each with its mirror image."""
    uniform = torch.quasirandom.SobolEngine(d, scramble=True, seed=1).draw(256, dtype=torch.float64)
    points = torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6))
    return torch.cat([points, -points])


@exercise.law("With many features the products come near exp(x · y)")
def is_unbiased(out, one, call):
    """With many features, products of rows come near exp(x·y)."""
    x, w = one.args
    rows = x.reshape(-1, x.shape[-1])[:2].double()
    rows = 0.5 * rows / rows.norm(dim=-1, keepdim=True).clamp(min=1e-9)
    features = call(rows.to(x.dtype), _normal_points(x.shape[-1]).to(w.dtype)).double()
    return same(features @ features.T, torch.exp(rows @ rows.T), rtol=0.1, atol=0.1)


exercise.law("The result has the dtype of the input")(keeps_dtype)


def _features(change):
    """Features `change(w·x, |x|², m)`."""

    def features(x, w):
        return change(x @ w.T, x.square().sum(-1, keepdim=True), w.shape[0])

    return features


exercise.mistake(
    "|x|²/2 isn't subtracted",
    hint="The mean of exp(w·x) over normal w is exp(|x|²/2): divide it away, in the exponent.",
)(_features(lambda s, x2, m: torch.exp(s) / math.sqrt(m)))

exercise.mistake("|x|² is subtracted, not its half", hint="Subtract |x|²/2.")(
    _features(lambda s, x2, m: torch.exp(s - x2) / math.sqrt(m))
)

exercise.mistake("|x|²/2 is added", hint="That is what trigonometric features need. Subtract it.")(
    _features(lambda s, x2, m: torch.exp(s + x2 / 2) / math.sqrt(m))
)

exercise.mistake("the norm is not squared", hint="x.square().sum(-1, keepdim=True) / 2.")(
    _features(lambda s, x2, m: torch.exp(s - x2.sqrt() / 2) / math.sqrt(m))
)

exercise.mistake("the square is divided by m", hint="A sum over the d entries, halved.")(
    _features(lambda s, x2, m: torch.exp(s - x2 / 2 / m) / math.sqrt(m))
)


@exercise.mistake("the mean of the squares is taken instead of their sum", hint="x.square().sum(-1, keepdim=True) / 2.")
def mean_of_squares(x, w):
    return torch.exp(x @ w.T - x.square().mean(-1, keepdim=True) / 2) / math.sqrt(w.shape[0])


@exercise.mistake("the square of w is subtracted, not that of x", hint="x.square().sum(-1).")
def square_of_w(x, w):
    return torch.exp(x @ w.T - w.square().sum(-1) / 2) / math.sqrt(w.shape[0])


@exercise.mistake(
    "all rows share one square", hint="Each row of x has its own: sum over the last dimension, keepdim=True."
)
def one_square_for_all(x, w):
    return torch.exp(x @ w.T - x.square().sum() / 2) / math.sqrt(w.shape[0])


exercise.mistake("|x|²/2 is subtracted after exp", hint="It belongs into the exponent.")(
    _features(lambda s, x2, m: (torch.exp(s) - x2 / 2) / math.sqrt(m))
)

exercise.mistake(
    "the features are divided by m instead of its root",
    hint="A product of two rows sums m products, so it needs 1/m: each row brings 1/sqrt(m).",
)(_features(lambda s, x2, m: torch.exp(s - x2 / 2) / m))

exercise.mistake(
    "the features aren't divided by sqrt(m)", hint="A product of two rows sums m products. It should be their mean."
)(_features(lambda s, x2, m: torch.exp(s - x2 / 2)))


@exercise.mistake("the features are divided by sqrt(d)", hint="m is the number of rows of w.")
def divided_by_width(x, w):
    return torch.exp(x @ w.T - x.square().sum(-1, keepdim=True) / 2) / math.sqrt(x.shape[-1])


exercise.mistake("1/sqrt(m) stands inside exp", hint="Divide after exp.")(
    _features(lambda s, x2, m: torch.exp((s - x2 / 2) / math.sqrt(m)))
)

performer = _features(lambda s, x2, m: torch.exp(s - x2 / 2) / math.sqrt(m))


@exercise.mistake(
    "the inputs are scaled by d^(-1/4) here", hint="The caller has done that to q and k, as the docstring says."
)
def scaled_inside(x, w):
    return performer(x * x.shape[-1] ** -0.25, w)


@exercise.mistake("the rows of w are brought to length 1", hint="Take w as it is.")
def unit_rows(x, w):
    return performer(x, F.normalize(w, dim=-1))


@exercise.mistake("the rows of x are brought to length 1", hint="Take x as it is.")
def unit_inputs(x, w):
    return performer(F.normalize(x, dim=-1), w)


exercise.mistake(
    "cosines are taken", hint="Trigonometric features (Rahimi & Recht) can be negative. Performer's are exponentials."
)(_features(lambda s, x2, m: torch.exp(x2 / 2) * torch.cos(s) / math.sqrt(m)))

exercise.mistake(
    "bare cosines are taken", hint="Those are Fourier features, for the Gaussian kernel. Performer's are exponentials."
)(_features(lambda s, x2, m: torch.cos(s) / math.sqrt(m)))

exercise.mistake("ReLU is taken", hint="Performer-ReLU is another kernel. Softmax attention needs exp.")(
    _features(lambda s, x2, m: torch.relu(s) / math.sqrt(m))
)

exercise.mistake("elu + 1 is taken", hint="That is the Linear Transformer's kernel. Softmax attention needs exp.")(
    _features(lambda s, x2, m: (F.elu(s) + 1) / math.sqrt(m))
)

exercise.mistake("a softmax runs over the features", hint="exp, and no normalizing here.")(
    _features(lambda s, x2, m: s.softmax(-1))
)

exercise.mistake(
    "a small number is added to each feature",
    hint="Performer's own code adds 1e-4, so that no division fails. Here nothing is added.",
)(_features(lambda s, x2, m: (torch.exp(s - x2 / 2) + 1e-4) / math.sqrt(m)))



@exercise.mistake(
    "exp(w · x) and exp(-|x|²/2) are taken apart, and the first overflows",
    hint="Their product may be small where a factor is infinite: subtract first, then one exp.",
)
def product_of_exponentials(x, w):
    return torch.exp(x @ w.T) * torch.exp(-x.square().sum(-1, keepdim=True) / 2) / math.sqrt(w.shape[0])


exercise.mistake("the exponent is cut off", hint="The features may be large: nothing is clamped.")(
    _features(lambda s, x2, m: torch.exp((s - x2 / 2).clamp(max=5.0)) / math.sqrt(m))
)

exercise.mistake(
    "each row's maximum is subtracted",
    hint="Then each key would be scaled by another number, and the attention changes.",
)(_features(lambda s, x2, m: torch.exp(s - x2 / 2 - s.amax(-1, keepdim=True)) / math.sqrt(m)))

exercise.mistake(
    "the largest exponent of all is subtracted",
    hint="Safe where a division follows, but these products estimate exp(x · y) itself.",
)(_features(lambda s, x2, m: torch.exp(s - x2 / 2 - (s - x2 / 2).amax()) / math.sqrt(m)))


@exercise.mistake(
    "everything is computed in float32, also for float64", hint="Don't cast: the result has the dtype of the input."
)
def features_in_float32(x, w):
    return performer(x.float(), w.float())


exercise.alternative(performer)


@exercise.alternative
def performer_by_squares(x, w):
    """w·x - |x|²/2 = (|w|² - |w - x|²) / 2."""
    apart = (x.unsqueeze(-2) - w).square().sum(-1)
    return torch.exp((w.square().sum(-1) - apart) / 2) * w.shape[0] ** -0.5


@exercise.alternative
def performer_by_loop(x, w):
    columns = [torch.exp((x * row).sum(-1) - (x * x).sum(-1) / 2 - math.log(len(w)) / 2) for row in w]
    return torch.stack(columns, -1)
