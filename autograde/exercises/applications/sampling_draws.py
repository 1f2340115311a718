"""How `sample` is judged: many draws from one seeded generator, against the exact distribution.

A sampler may turn random numbers into tokens in any way (multinomial, inverse CDF, Gumbel-max), so draws are compared
with probabilities, never with other draws. The bound is a theorem, not an approximation: for n draws over k tokens,
P(n KL(frequencies || p) >= x) <= e^-x (e x / (k-1))^(k-1) for x > k - 1 (Agrawal 2020, "Finite-sample concentration of
the multinomial in relative entropy", arXiv:1904.02291). A correct sampler fails once in 10^12 rows.
"""

from __future__ import annotations

import math

import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from autograde.exercise import case, same

_FALSE_ALARM = 1e-12


def draw_many(sample, logits, draws, seed, **knobs):
    """Draws `draws` tokens from each row; twice 32 more from one seed, and then 32 that go on from there."""
    import torch

    def generator():
        return None if seed is None else torch.Generator().manual_seed(seed)

    def draw(times, source):
        return sample(logits.expand(times, *logits.shape), generator=source, **knobs)

    few = [draw(32, generator())]
    torch.default_generator.manual_seed(1_234_567)  # whoever listens to the global generator now hears something else
    going_on = generator()
    few += [draw(32, going_on), draw(32, going_on)]
    return {"tokens": draw(draws, generator()), "few": few[0], "again": few[1], "next": few[2]}


def hf_distribution(logits, draws, seed, temperature=1.0, top_k=None, top_p=1.0, min_p=0.0):
    """The exact probabilities, from the warpers that transformers' generate() makes of these settings, in its order."""
    rows = logits.double().reshape(-1, logits.shape[-1])
    if temperature == 0:
        best = rows.argmax(-1)
        return {"probabilities": torch.nn.functional.one_hot(best, rows.shape[-1]).double().reshape(logits.shape)}
    warpers = [TemperatureLogitsWarper(float(temperature))]
    warpers += [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    warpers += [MinPLogitsWarper(min_p)] if min_p else []
    return {"probabilities": LogitsProcessorList(warpers)(None, rows).softmax(-1).reshape(logits.shape)}


def sample_cases(g):
    def logits(*probs):
        """Logits of about these probabilities, in a random order, with a random constant added."""
        x = torch.tensor(probs).log()[torch.randperm(len(probs), generator=g)]
        return x + 0.02 * torch.randn(len(probs), generator=g) + torch.randn(1, generator=g)

    def seed():
        return int(torch.randint(1, 10_000, (), generator=g))

    rows = torch.stack([logits(0.45, 0.3, 0.15, 0.1), logits(0.6, 0.2, 0.12, 0.08)])
    banned = torch.cat([torch.full((1,), -math.inf), logits(0.5, 0.3, 0.2)])
    yield case(logits(0.4, 0.25, 0.2, 0.1, 0.05), 600, seed(), label="no knob turned")
    yield case(rows.expand(2, 2, 4), 200, seed(), label="two batch dimensions")
    yield case(logits(0.4, 0.3, 0.2, 0.1), 600, seed(), temperature=0.5, label="temperature 0.5")
    yield case(rows, 100, seed(), temperature=0, top_k=3, top_p=0.9, label="temperature 0")
    falling = logits(0.3, 0.25, 0.2, 0.15, 0.1).sort(descending=True).values
    yield case(falling, 600, seed(), top_k=3, label="top_k alone")
    yield case(logits(0.4, 0.3, 0.2, 0.1), 600, seed(), top_p=0.8, label="top_p alone")
    yield case(logits(0.45, 0.3, 0.15, 0.1), 600, seed(), min_p=0.5, label="min_p alone")
    yield case(logits(0.5, 0.3, 0.15, 0.05), 600, seed(), temperature=2.0, top_p=0.75, label="temperature and top_p")
    yield case(logits(0.4, 0.3, 0.2, 0.1), 600, seed(), top_k=3, top_p=0.75, label="top_k and top_p")
    yield case(logits(0.4, 0.3, 0.2, 0.1), 600, seed(), top_p=0.75, min_p=0.4, label="top_p and min_p")
    yield case(banned, 600, None, label="no generator, and -inf among the logits")


# ---- agreement and laws ---------------------------------------------------------------------------------------------

def agrees(expected, got, one):
    """Whether the draws can come from the expected probabilities, and repeat as their generator says.

    Where `expected` holds draws, too (those of a known mistake), whether both look like one and the same mistake.
    """
    if "probabilities" not in expected:
        return _same_source(expected, got, one.args[0].shape[-1])
    odd = _unlike_tokens(got["tokens"], one)
    if odd:
        return odd
    vocab = one.args[0].shape[-1]
    probs, counts = expected["probabilities"].reshape(-1, vocab), _counts(got["tokens"], vocab)
    if bool((counts * (probs == 0)).any()):
        return "a token was drawn that the knobs should have ruled out"
    if max(_evidence(c, p) for c, p in zip(counts, probs, strict=True)) > _bound(vocab):
        return "the tokens don't come up as often as their probabilities say"
    unlike_its_seed = [law(got, one, None) for law in (generator_decides, generator_moves_on)]
    return next((told for told in unlike_its_seed if isinstance(told, str)), True)


def _unlike_tokens(tokens, one):
    """What keeps a result from being one token id a row, or an empty text."""
    if not isinstance(tokens, torch.Tensor):
        return "sample should return a tensor of token ids"
    shape, vocab = (one.args[1], *one.args[0].shape[:-1]), one.args[0].shape[-1]
    if tokens.shape != shape:
        return f"{(*shape, vocab)} logits went in, so {shape} token ids should come out, not {tuple(tokens.shape)}"
    if tokens.dtype != torch.int64:
        return f"token ids are int64, not {tokens.dtype}"
    return f"a token id is outside 0 … {vocab - 1}" if tokens.min() < 0 or tokens.max() >= vocab else ""


def _same_source(expected, got, vocab):
    a, b = expected["tokens"], got["tokens"]
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor) or (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    if a.dtype != torch.int64 or a.max() >= vocab:
        return same(a, b)
    a, b = (_counts(tokens, vocab) / len(tokens) for tokens in (a, b))
    return bool(((a - b).abs().sum(-1) < 0.15).all()) and _replays(expected) == _replays(got)


def _replays(out):
    return torch.equal(out["few"], out["again"]), torch.equal(out["again"], out["next"])


def _counts(tokens, vocab):
    """How often each token came up: [rows, vocab]."""
    return torch.nn.functional.one_hot(tokens.reshape(len(tokens), -1), vocab).sum(0).double()


def _evidence(counts, probs):
    """n KL(frequencies || probs), in nats."""
    n = counts.sum()
    return float(torch.special.xlogy(counts, counts / (n * probs.clamp(min=1e-300))).sum())


def _bound(k):
    """The x at which the theorem's right-hand side falls to the false-alarm rate."""
    free = max(k - 1, 1)
    x = float(free)
    while -x + free * math.log(math.e * x / free) > math.log(_FALSE_ALARM):
        x += 0.5
    return x


def only_survivors(out, one, call):
    probs = hf_distribution(*one.args, **one.kwargs)["probabilities"].reshape(-1, one.args[0].shape[-1])
    return not bool((_counts(out["tokens"], probs.shape[-1]) * (probs == 0)).any())


def greedy_at_zero(out, one, call):
    if one.kwargs.get("temperature", 1.0) > 0:
        return None
    return bool((out["tokens"] == one.args[0].argmax(-1)).all())


def generator_decides(out, one, call):
    if one.args[2] is None:
        return None
    return torch.equal(out["few"], out["again"]) or "one generator state, and yet the tokens differ"


def generator_moves_on(out, one, call):
    probs = hf_distribution(*one.args, **one.kwargs)["probabilities"].reshape(-1, one.args[0].shape[-1])
    chance = 32 * float(probs.square().sum(-1).log().sum())  # of the same 32 draws twice, in every row
    if chance > math.log(_FALSE_ALARM):
        return None
    return not torch.equal(out["again"], out["next"]) or "two draws in a row from one generator are the same"


def rows_are_independent(out, one, call):
    """Tokens of rows with the same logits, drawn in one call, are not all equal."""
    probs = hf_distribution(*one.args, **one.kwargs)["probabilities"]
    one_draw = float(probs.square().sum(-1).max())  # the chance that two rows get the same token
    if one.args[1] * math.log(one_draw) > math.log(_FALSE_ALARM):
        return None
    tokens = out["tokens"].reshape(len(out["tokens"]), -1)
    return not bool((tokens == tokens[:1]).all(0).any()) or "all rows of a batch got the same token"
