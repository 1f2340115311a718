"""What windows, Linformer and Performer are judged by: transformers' window, torch's attention, normal densities."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F

from autograde.exercise import case, same


def _randn(g, *shape):
    return torch.randn(*shape, generator=g)


def _int(g, low, high):
    """A random whole number from low to high - 1."""
    return int(torch.randint(low, high, (), generator=g))


# ---- sliding_window_mask --------------------------------------------------------------------------------------------

def answer_or_refusal(implementation, n, window, causal=True, past=0):
    """The mask, or the word "ValueError" where one is raised."""
    try:
        return implementation(n, window, causal=causal, past=past)
    except ValueError:
        return "ValueError"


def transformers_window(n, window, causal=True, past=0):
    """What Mistral sees in transformers; looking both ways, that and its mirror image."""
    from transformers.masking_utils import sliding_window_causal_mask_function

    if window < 1:
        return "ValueError"
    sees = sliding_window_causal_mask_function(window)
    queries, keys = torch.arange(past, past + n)[:, None], torch.arange(past + n)
    back = sees(0, 0, queries, keys)
    return back if causal else back | sees(0, 0, keys, queries)


def window_cases(g):
    yield case(6, 3, label="six tokens, window 3")
    yield case(7, 3, causal=False, label="both ways")
    yield case(5, 2, label="window 2")
    yield case(1, 1, label="one token")
    yield case(4, 1, label="a window of one")
    yield case(5, 1, causal=False, label="a window of one, both ways")
    yield case(3, 10, label="a window wider than the text")
    yield case(4, 9, causal=False, label="both ways, wider than the text")
    yield case(9, 4, causal=False, label="both ways, window 4")
    yield case(1, 4, past=6, label="one new token, six in the cache")
    yield case(3, 2, past=4, label="three new tokens, four in the cache")
    yield case(4, 3, causal=False, past=2, label="both ways, two in the cache")
    yield case(_int(g, 20, 40), _int(g, 5, 15), label="a random size")
    yield case(_int(g, 5, 9), window=_int(g, 10, 15), past=_int(g, 16, 30), label="a long cache")
    yield case(4, 0, label="no window at all")


def _parts(one):
    names = dict(zip(("n", "window", "causal", "past"), one.args, strict=False)) | one.kwargs
    return names["n"], names["window"], names.get("causal", True), names.get("past", 0)


def window_holds_itself(out, one, call):
    n, window, _, past = _parts(one)
    return bool(out[torch.arange(n), torch.arange(past, past + n)].all()) if window > 0 else None


def window_is_full(out, one, call):
    """A token with enough before it sees `window` keys at or before its own place."""
    n, window, _, past = _parts(one)
    if window < 1:
        return None
    rows = torch.arange(past, past + n)
    back = torch.stack([row[: place + 1].sum() for row, place in zip(out, rows.tolist(), strict=True)])
    return same(back, (rows + 1).clamp(max=window))


def window_looks_ahead(out, one, call):
    """Nothing ahead where it is causal; as far ahead as back where it isn't."""
    n, window, causal, past = _parts(one)
    if window < 1:
        return None
    own = out[:, past:]
    return not own.triu(1).any() if causal else same(own, own.mT)


def window_is_refused(out, one, call):
    n, _, causal, past = _parts(one)
    return call(n, 0, causal=causal, past=past) == call(n, -2, causal=causal, past=past) == "ValueError"


def window_is_bool(out, one, call):
    return isinstance(out, str) or out.dtype is torch.bool or f"the mask should be a bool tensor, and is {out.dtype}"


# ---- linformer_attention --------------------------------------------------------------------------------------------

def torch_linformer(q, k, v, e, f):
    """torch's attention over the projected keys and values, in float64."""
    q, k, v, e, f = (x.double() for x in (q, k, v, e, f))
    return F.scaled_dot_product_attention(q, e @ k, f @ v).to(q.dtype)


def _projected(g, lead, n, m, d, r, wide=None):
    inputs = _randn(g, *lead, n, d), _randn(g, *lead, m, d), _randn(g, *lead, m, wide or d)
    return *inputs, _randn(g, r, m) * 2 * m**-0.5, _randn(g, r, m) * m**-0.5


def linformer_cases(g):
    yield case(*_projected(g, (), 5, 6, 4, 3), label="six keys become three")
    yield case(*_projected(g, (2,), 4, 7, 3, 2, wide=5), label="a batch, wider values")
    yield case(*_projected(g, (2, 3), 6, 6, 4, 2), label="two batch dimensions")
    yield case(*_projected(g, (2,), 1, 5, 4, 2), label="one query")
    yield case(*_projected(g, (), 3, 4, 1, 2), label="width one")
    yield case(*_projected(g, (2,), 5, 8, 4, 1), label="one projected key")
    yield case(*_projected(g, (), 4, 4, 4, 4), label="every size is four")
    yield case(*_projected(g, (2,), 3, 4, 6, 9), label="more projected keys than keys")
    yield case(*(x * s for x, s in zip(_projected(g, (2,), 4, 6, 4, 3), (60, 60, 5, 1, -1), strict=True)),
               label="scores of thousands")
    yield case(*(x.double() for x in _projected(g, (3,), 4, 5, 2, 3)), label="float64")
    yield case(*(x.mT.contiguous().mT for x in _projected(g, (2,), 5, 6, 4, 3)), label="not contiguous")
    q, k, v, e, f = _projected(g, (2,), 4, 6, 4, 3)
    yield case(torch.zeros_like(q), k, v, e, f, label="queries of zeros")


def full_attention_at_identity(out, one, call):
    q, k, v = one.args[:3]
    eye = torch.eye(k.shape[-2], dtype=q.dtype)
    return same(call(q, k, v, eye, eye), F.scaled_dot_product_attention(q, k, v))


def every_value_counts(out, one, call):
    """A change of any value, near or far, reaches every query."""
    q, k, v, e, f = one.args
    other = v.clone()
    other[..., -1, :] += 3.0
    moved = call(q, k, other, torch.zeros_like(e), torch.ones_like(f)) - call(q, k, v, torch.zeros_like(e),
                                                                             torch.ones_like(f))
    return same(moved, torch.full_like(moved, 3.0), rtol=1e-3, atol=1e-3)


def keys_and_values_have_their_own(out, one, call):
    """With e = 0 all projected keys are alike: the mean of the projected values comes out."""
    q, k, v, e, f = one.args
    mean = (f @ v).mean(-2, keepdim=True).expand(out.shape)
    return same(call(q, k, v, torch.zeros_like(e), f), mean)


def order_is_in_the_projections(out, one, call):
    """Keys and values in another order, with the columns of e and f in that order: nothing changes."""
    q, k, v, e, f = one.args
    order = torch.arange(k.shape[-2]).roll(1)
    return same(call(q, k[..., order, :], v[..., order, :], e[:, order], f[:, order]), out, rtol=1e-3, atol=1e-4)


# ---- performer_features ---------------------------------------------------------------------------------------------

def density_ratio(x, w):
    """exp(w·x - |x|²/2) is how much likelier w is under a normal distribution around x than under one around 0."""
    x, wide = x.double(), w.double()
    one = torch.ones((), dtype=torch.float64)
    around = torch.distributions.Independent(torch.distributions.Normal(x.unsqueeze(-2), one), 1)
    zero = torch.distributions.Independent(torch.distributions.Normal(torch.zeros_like(x).unsqueeze(-2), one), 1)
    return ((around.log_prob(wide) - zero.log_prob(wide)).exp() / w.shape[0] ** 0.5).to(w.dtype)


def performer_cases(g):
    yield case(_randn(g, 3, 4), _randn(g, 5, 4), label="five features")
    yield case(_randn(g, 2, 3, 6) * 0.5, _randn(g, 8, 6), label="a batch")
    yield case(_randn(g, 2, 3, 4, 2), _randn(g, 3, 2), label="two batch dimensions")
    yield case(_randn(g, 1, 4), _randn(g, 1, 4), label="one row, one feature")
    yield case(_randn(g, 5, 1) * 2, _randn(g, 4, 1), label="width one")
    yield case(_randn(g, 4), _randn(g, 6, 4), label="a single vector")
    yield case(_randn(g, 4, 4), _randn(g, 4, 4), label="every size is four")
    yield case(_randn(g, 2, 16), _randn(g, 3, 16) * 2, label="wide rows")
    yield case(torch.zeros(2, 3), _randn(g, 4, 3), label="zeros")
    yield case(_randn(g, 3, 2) * 4, _randn(g, 5, 2), label="large inputs")
    yield case(_randn(g, 2, 3).double(), _randn(g, 4, 3).double(), label="float64")
    yield case(_randn(g, 4, 2, 3).transpose(0, 1), _randn(g, 3, 5).T, label="not contiguous")


def is_positive(out, one, call):
    return bool((out >= 0).all() and (call(one.args[0] / 4, one.args[1]) > 0).all())


def zeros_give_one_number(out, one, call):
    x, w = one.args
    flat = call(torch.zeros_like(x), w)
    return same(flat, torch.full_like(flat, w.shape[0] ** -0.5))


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


def is_unbiased(out, one, call):
    """With many features, products of rows come near exp(x·y)."""
    x, w = one.args
    rows = x.reshape(-1, x.shape[-1])[:2].double()
    rows = 0.5 * rows / rows.norm(dim=-1, keepdim=True).clamp(min=1e-9)
    features = call(rows.to(x.dtype), _normal_points(x.shape[-1]).to(w.dtype)).double()
    return same(features @ features.T, torch.exp(rows @ rows.T), rtol=0.1, atol=0.1)
