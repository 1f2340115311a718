"""How the four filters of 02_applications/02_sampling are judged: oracles, cases and laws.

The oracles are transformers' logits warpers, run in float64. Random cases keep the cumulative probabilities clear of p,
and the odds clear of min_p, so that rounding never decides; where equality itself is the point, the probabilities are
quarters, which every floating-point type holds exactly.
"""

from __future__ import annotations

import math

import torch
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from autograde.exercise import Law, case, same
from autograde.judging.comparing import compare

INF = math.inf


# ---- what transformers does ----------------------------------------------------------------------------------------

def _warp(warper, logits):
    rows = logits.double().reshape(-1, logits.shape[-1])
    return warper(None, rows).reshape(logits.shape).to(logits.dtype)


def hf_temperature(logits, temperature):
    if temperature > 0:
        return _warp(TemperatureLogitsWarper(float(temperature)), logits)
    best = logits.argmax(-1, keepdim=True)  # the first of equals
    return torch.full_like(logits, -INF).scatter(-1, best, logits.gather(-1, best))


def hf_top_k(logits, k):
    return _warp(TopKLogitsWarper(k), logits)


def hf_top_p(logits, p):
    # generate() leaves the warper out at p = 1; the warper itself would drop probabilities that round to 0.
    return logits.clone() if p >= 1 else _warp(TopPLogitsWarper(p), logits)


def hf_min_p(logits, min_p):
    return _warp(MinPLogitsWarper(min_p), logits)


# ---- what the exercises share --------------------------------------------------------------------------------------

def _randn(generator, *shape, scale=1.5):
    return torch.randn(*shape, generator=generator) * scale


def _shuffled(generator, values):
    return torch.tensor(values)[torch.randperm(len(values), generator=generator)]


def _strided(x):
    """The same values, not contiguous."""
    return torch.stack([x, x], -1)[..., 0]


def _logits(one):
    return one.args[0] if one.args else one.kwargs["logits"]


def _knob(one, name):
    return one.args[1] if len(one.args) > 1 else one.kwargs[name]


def _fits(out, one):
    """Whether the result can be set beside the logits at all."""
    return isinstance(out, torch.Tensor) and out.shape == _logits(one).shape and out.is_floating_point()


def agrees(expected, got, one):
    """The same values in the dtype of the logits; bfloat16 holds three digits."""
    if isinstance(got, torch.Tensor) and got.dtype != expected.dtype:
        return f"the result should be {expected.dtype}, as the logits are, not {got.dtype}"
    digits = 4e-2 if _logits(one).dtype is torch.bfloat16 else 1e-4
    mismatch = compare(expected, got, digits, digits / 10)
    return mismatch.message if mismatch else True


def _only_filtered(out, one, call):
    x = _logits(one)
    if not _fits(out, one):
        return "the result has another shape or kind than the logits"
    if out.dtype != x.dtype:
        return f"{x.dtype} went in, {out.dtype} came out"
    return bool(((out == x) | (out == -INF)).all()) or "an entry is neither its logit nor -inf"


def best_stays(out, one, call):
    return _fits(out, one) and bool((out.amax(-1) == _logits(one).amax(-1)).all())


def _best_first(out, one, call):
    """No dropped token is likelier than a kept one."""
    if not _fits(out, one):
        return False
    x, kept = _logits(one), out > -INF
    return bool((x.masked_fill(kept, -INF).amax(-1) <= x.masked_fill(~kept, INF).amin(-1)).all())


def _row_by_row(out, one, call):
    x = _logits(one)
    if x.dim() < 2:
        return None
    rows, name = x.reshape(-1, x.shape[-1]), next(iter(one.kwargs), None)
    knob = {name: one.kwargs[name]} if name else {}
    alone = torch.stack([call(row, *one.args[1:], **knob) for row in rows])
    return _fits(out, one) and same(out, alone.reshape(x.shape))


only_filtered = Law("Kept logits are unchanged, the others are -inf, and the dtype stays", _only_filtered)
best_first = Law("No dropped token is likelier than a kept one", _best_first)
row_by_row = Law("Each row is filtered by itself", _row_by_row)


# ---- apply_temperature ---------------------------------------------------------------------------------------------

def temperature_cases(g):
    huge = _shuffled(g, [1e4, 9_990.0, 0.0, -1e4])
    masked = _randn(g, 2, 6)
    masked[0, 1] = masked[1, 4] = -INF
    tied = torch.tensor([[0.5, 2.0, -1.0, 2.0], [3.0, -2.0, 3.0, 3.0]]) + _randn(g, 1)
    yield case(_randn(g, 7), 0.7, label="one row, cooler")
    yield case(_randn(g, 3, 5), 2.0, label="three rows, hotter")
    yield case(_randn(g, 2, 2, 4), temperature=0.25, label="two batch dimensions, by keyword")
    yield case(_randn(g, 5), 1.0, label="temperature 1")
    yield case(_randn(g, 3, 5), 0.0, label="temperature 0")
    yield case(tied, 0, label="temperature 0 and tied best tokens")
    yield case(masked, 0.5, label="-inf among the logits")
    yield case(huge, 4.0, label="huge logits")
    yield case(_randn(g, 4, 3).t(), 1.7, label="not contiguous")
    yield case(_randn(g, 6).bfloat16(), 0.8, label="bfloat16")
    yield case(_randn(g, 1), 0.0, label="a vocabulary of one")


def one_is_neutral(out, one, call):
    x = _logits(one)
    return agrees(x, call(x, 1.0), one)


def scales_gaps(out, one, call):
    x, t = _logits(one), _knob(one, "temperature")
    if t == 0 or x.shape[-1] < 2:
        return None
    if not _fits(out, one):
        return False
    rounding = 8 * torch.finfo(x.dtype).eps
    before, after = ((z - z.amax(-1, keepdim=True)).double() for z in (x, out))
    return same(after * t, before, rtol=rounding, atol=rounding * float(x[x > -INF].abs().max()))


def greedy_at_zero(out, one, call):
    x = _logits(one)
    if _knob(one, "temperature") > 0:
        return None
    alone = _fits(out, one) and bool(((out > -INF).sum(-1) == 1).all() and not torch.isnan(out).any())
    return alone and bool((out.amax(-1) == x.amax(-1)).all())


def flatter_when_hotter(out, one, call):
    x, t = _logits(one), _knob(one, "temperature")
    if t == 0 or x.shape[-1] < 2:
        return None
    if not _fits(out, one):
        return False
    peaks = [z.double().softmax(-1).amax(-1) for z in (out, call(x, 2 * t))]
    return bool((peaks[1] <= peaks[0] + 1e-6).all())


# ---- top_k_filter --------------------------------------------------------------------------------------------------

def top_k_cases(g):
    masked = _randn(g, 2, 6)
    masked[0, 2] = masked[1, 3] = -INF
    ties = _shuffled(g, [2.0, 1.0, 1.0, 1.0, 0.0, -1.0])
    yield case(_randn(g, 8), 3, label="one row")
    yield case(_randn(g, 3, 7) - 2, 2, label="three rows, mostly negative")
    yield case(_randn(g, 2, 2, 5), k=4, label="two batch dimensions, by keyword")
    yield case(_randn(g, 2, 6), 1, label="k = 1")
    yield case(ties, 2, label="ties at the k-th place")
    yield case(_randn(g, 4), 9, label="k larger than the vocabulary")
    yield case(masked, 3, label="-inf among the logits")
    yield case(_shuffled(g, [1e4, 500.0, -1e4, 9_000.0, 0.0]), 2, label="huge logits")
    yield case(_randn(g, 6, 2).t(), 2, label="not contiguous")
    yield case(_randn(g, 1), 1, label="a vocabulary of one")


def count_is_k(out, one, call):
    x, k = _logits(one), _knob(one, "k")
    if not _fits(out, one):
        return False
    kept = out > -INF
    least = out.masked_fill(~kept, INF).amin(-1, keepdim=True)
    enough = kept.sum(-1) >= (x > -INF).sum(-1).clamp(max=k)
    return bool(enough.all() and ((out > least).sum(-1) < k).all())


def ties_share_fate(out, one, call):
    if not _fits(out, one):
        return False
    x, kept = _logits(one), out > -INF
    split = (x.unsqueeze(-1) == x.unsqueeze(-2)) & (kept.unsqueeze(-1) != kept.unsqueeze(-2))
    return not bool(split.any())


# ---- top_p_filter --------------------------------------------------------------------------------------------------

def _clear_of_p(g, *shape, margin=0.02, dtype=torch.float32):
    """Logits and a p that no row's cumulative probability comes near, and that some row's best token stays below."""
    while True:
        x = _randn(g, *shape).to(dtype)
        p = round(0.4 + 0.5 * torch.rand((), generator=g).item(), 2)
        sums = x.double().softmax(-1).sort(-1, descending=True).values.cumsum(-1)
        if (sums - p).abs().min() > margin and (sums[..., 0] < p).any() and (sums[..., -2] > p).any():
            return x, p


def top_p_cases(g):
    x, p = _clear_of_p(g, 2, 2, 6)
    masked, p_masked = _clear_of_p(g, 2, 6)
    masked = torch.cat([torch.full((2, 1), -INF), masked, torch.full((2, 1), -INF)], -1)
    level = _randn(g, 1).item()
    yield case(*_clear_of_p(g, 8), label="one row")
    yield case(*_clear_of_p(g, 3, 9), label="three rows")
    yield case(_strided(x), p=p, label="two batch dimensions, not contiguous, by keyword")
    yield case(_shuffled(g, [level] * 4 + [-INF] * 3), 0.5, label="four tokens of 1/4 each and p = 1/2, exactly")
    yield case(_shuffled(g, [1e4, 9_900.0, 3.0, -2.0, -1e4]), 1.0, label="p = 1 and huge logits")
    yield case(_randn(g, 2, 5), 0.0, label="p = 0")
    yield case(_shuffled(g, [6.0, 1.0, 0.5, -1.0, 0.0]), 0.6, label="the best token alone exceeds p")
    yield case(masked, p_masked, label="-inf among the logits")
    yield case(*_clear_of_p(g, 7, margin=0.05, dtype=torch.bfloat16), label="bfloat16")
    yield case(torch.tensor([[1.0, -1.0], [0.0, 0.5]]), 0.7, label="a vocabulary of two")
    yield case(_randn(g, 1), 0.3, label="a vocabulary of one")


def agrees_up_to_ties(expected, got, one):
    """Where equal tokens straddle the cut, which of them stays is open."""
    verdict = agrees(expected, got, one)
    if verdict is True or _only_filtered(got, one, None) is not True:
        return verdict
    return torch.equal(got.sort(-1).values, expected.sort(-1).values) or verdict


def _masses(out, one):
    """The probability that the kept tokens hold in each row, and that of the least of them."""
    kept = out > -INF
    probs = _logits(one).double().softmax(-1)
    return (probs * kept).sum(-1), probs.masked_fill(~kept, INF).amin(-1), kept.sum(-1)


def holds_p(out, one, call):
    return _fits(out, one) and bool((_masses(out, one)[0] >= _knob(one, "p") - 1e-6).all())


def is_smallest(out, one, call):
    p = _knob(one, "p")
    if p >= 1:
        return None
    if not _fits(out, one):
        return False
    mass, least, count = _masses(out, one)
    return bool(((mass - least < p) | (count == 1)).all())


def one_keeps_all(out, one, call):
    x = _logits(one)
    return same(call(x, 1.0), x)


# ---- min_p_filter --------------------------------------------------------------------------------------------------

def _clear_of_min_p(g, *shape, dtype=torch.float32):
    """Logits and a min_p that no token's odds against the best one come near."""
    while True:
        x = _randn(g, *shape).to(dtype)
        min_p = round(0.03 + 0.3 * torch.rand((), generator=g).item(), 2)
        odds = (x.double() - x.double().amax(-1, keepdim=True)).exp()
        bar = min_p * x.double().softmax(-1).amax()
        split = (odds < min_p).any() and ((odds >= min_p).sum(-1) > 1).any()
        split = split and (x.dim() == 1 or not torch.equal(odds < min_p, x.double().softmax(-1) < bar))
        if split and (odds.log() - math.log(min_p)).abs().min() > 0.06:
            return x, min_p


def min_p_cases(g):
    x, min_p = _clear_of_min_p(g, 2, 2, 6)
    masked, min_p_masked = _clear_of_min_p(g, 2, 6)
    masked = torch.cat([torch.full((2, 1), -INF), masked], -1)
    flat = _shuffled(g, [0.3, 0.2, 0.1, 0.0, 0.0, -0.1, -0.2, -3.0])
    yield case(*_clear_of_min_p(g, 8), label="one row")
    yield case(*_clear_of_min_p(g, 4, 7), label="four rows")
    yield case(_strided(x), min_p=min_p, label="two batch dimensions, not contiguous, by keyword")
    yield case(flat, 0.25, label="nearly flat: every probability below min_p")
    yield case(_shuffled(g, [2.0, 2.0, 1.0, -1.0, 0.5]), 1.0, label="min_p = 1 and tied best tokens")
    yield case(_shuffled(g, [1e4, 9_999.0, 20.0, -3.0, -1e4]), 0.1, label="huge logits")
    yield case(_shuffled(g, [1e4, 50.0, -1e4]), 0.0, label="min_p = 0 and huge logits")
    yield case(-8 + _clear_of_min_p(g, 6)[0], 0.0, label="min_p = 0, all logits negative")
    yield case(masked, min_p_masked, label="-inf among the logits")
    yield case(*_clear_of_min_p(g, 7, dtype=torch.bfloat16), label="bfloat16")
    yield case(torch.tensor([[1.0, -1.0], [0.0, 0.5]]), 0.3, label="a vocabulary of two")
    yield case(_randn(g, 1), 0.9, label="a vocabulary of one")


def shift_is_neutral(out, one, call):
    shifted = call(_logits(one).double() + 7.0, _knob(one, "min_p"))
    return _fits(out, one) and _fits(shifted, one) and torch.equal(out > -INF, shifted > -INF)


def stricter_keeps_less(out, one, call):
    stricter = call(_logits(one), min(1.0, 2 * _knob(one, "min_p")))
    if not (_fits(out, one) and _fits(stricter, one)):
        return False
    return not bool(((stricter > -INF) & ~(out > -INF)).any())
