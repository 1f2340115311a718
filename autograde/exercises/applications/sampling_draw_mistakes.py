"""Wrong ways to draw a token, as complete implementations, and three right ones."""

from __future__ import annotations

import math

import torch

from autograde.exercises.applications.sampling_mistakes import right_greedy, right_min_p, right_top_k, right_top_p

INF = math.inf


def _temperature(logits, temperature, **knobs):
    return logits / temperature if temperature else right_greedy(logits)


def _k(logits, top_k, **knobs):
    return right_top_k(logits, top_k) if top_k else logits


def _p(logits, top_p, **knobs):
    return right_top_p(logits, top_p)


def _m(logits, min_p, **knobs):
    return right_min_p(logits, min_p)


def _zeros(logits, **knobs):
    kept = _m(_p(_k(logits, **knobs), **knobs), **knobs)
    return torch.where(kept > -INF, kept, 0.0)


def _multinomial(logits, generator):
    rows = logits.softmax(-1).reshape(-1, logits.shape[-1])
    return rows.multinomial(1, generator=generator).reshape(logits.shape[:-1])


def _unflattened(logits, generator):
    return logits.softmax(-1).multinomial(1, generator=generator).squeeze(-1)


def _inverse_cdf(logits, generator, shared=False):
    shape = (1,) * logits.dim() if shared else (*logits.shape[:-1], 1)
    sums = logits.double().softmax(-1).cumsum(-1)
    number = torch.rand(shape, generator=generator, dtype=torch.float64) * sums[..., -1:]
    return (sums <= number).sum(-1)


def _gumbel(logits, generator):
    noise = -torch.empty(logits.shape).exponential_(generator=generator).log()
    return (logits + noise).argmax(-1)


def _reseeded(logits, generator):
    return _multinomial(logits, generator.manual_seed(0) if generator else None)


def _logits_as_weights(logits, generator):
    weights = logits.clamp(min=0) + 1e-9
    return weights.reshape(-1, logits.shape[-1]).multinomial(1, generator=generator).reshape(logits.shape[:-1])


def _sampler(*steps, draw=_multinomial):
    """A `sample` that takes these steps in this order and then draws."""
    def sample(logits, temperature=1.0, top_k=None, top_p=1.0, min_p=0.0, generator=None):
        for step in steps:
            logits = step(logits, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        return draw(logits, generator)
    return sample


sample_multinomial = _sampler(_temperature, _k, _p, _m)
sample_gumbel = _sampler(_temperature, _k, _p, _m, draw=_gumbel)
sample_inverse_cdf = _sampler(_temperature, _k, _p, _m, draw=_inverse_cdf)
sample_argmax = _sampler(draw=lambda logits, generator: logits.argmax(-1))
sample_logits = _sampler(_temperature, _k, _p, _m, draw=_logits_as_weights)
sample_temperature_last = _sampler(_k, _p, _m, _temperature)
sample_top_p_first = _sampler(_temperature, _p, _k, _m)
sample_min_p_first = _sampler(_temperature, _m, _k, _p)
sample_multiplied = _sampler(lambda x, temperature, **k: x * temperature if temperature else right_greedy(x),
                             _k, _p, _m)
sample_without_top_k = _sampler(_temperature, _p, _m)
sample_without_top_p = _sampler(_temperature, _k, _m)
sample_without_min_p = _sampler(_temperature, _k, _p)
sample_zero_filter = _sampler(_temperature, _zeros)
sample_global = _sampler(_temperature, _k, _p, _m, draw=lambda logits, generator: _multinomial(logits, None))
sample_reseeded = _sampler(_temperature, _k, _p, _m, draw=_reseeded)
sample_shared_number = _sampler(_temperature, _k, _p, _m, draw=lambda x, g: _inverse_cdf(x, g, shared=True))
sample_keepdim = _sampler(_temperature, _k, _p, _m, draw=lambda x, g: _multinomial(x, g).unsqueeze(-1))
sample_unflattened = _sampler(_temperature, _k, _p, _m, draw=_unflattened)
sample_probabilities = _sampler(_temperature, _k, _p, _m, draw=lambda logits, generator: logits.softmax(-1))


def sample_not_renormalised(logits, temperature=1.0, top_k=None, top_p=1.0, min_p=0.0, generator=None):
    warm = _temperature(logits, temperature)
    kept = _m(_p(_k(warm, top_k), top_p), min_p) > -INF
    sums = (warm.softmax(-1) * kept).cumsum(-1)
    number = torch.rand((*logits.shape[:-1], 1), generator=generator)
    return (sums <= number).sum(-1).clamp(max=logits.shape[-1] - 1)
