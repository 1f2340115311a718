"""`sample(logits, temperature=1.0, top_k=None, top_p=1.0, min_p=0.0, generator=None)`

Draw one token from each row: temperature, top-k, top-p, min-p, softmax of what is left.
"""

from __future__ import annotations

import math

import torch

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.sampling.shared import INF, right_greedy, right_min_p, right_top_k, right_top_p
from autograde.exercises.shared import logits_processor

exercise = Draft(
    "sample",
    points=3,
    forbid=["transformers"],
    no_gradient="it is used while a model writes, where nothing is trained",
    dtypes=(torch.float64,),
    hints=[
        "Your four functions already do the work. What is the order, and which knobs are off by default?",
        "Temperature, top-k (unless None), top-p, min-p, softmax, draw. `torch.multinomial` takes one or two "
        "dimensions only: flatten the batch first, and pass `generator=generator`.",
        "`probs = logits.softmax(-1)`; `torch.multinomial(probs.reshape(-1, probs.shape[-1]), 1, generator=generator)"
        ".reshape(probs.shape[:-1])`.",
    ],
)


@exercise.cases
def sample_cases(g):
    def logits(*probs):
        """Logits of about these probabilities, in a random order, with a random constant added."""
        x = torch.tensor(probs).log()[torch.randperm(len(probs), generator=g)]
        return x + 0.02 * torch.randn(len(probs), generator=g) + torch.randn(1, generator=g)

    def seed():
        return int(torch.randint(1, 10_000, (), generator=g))

    one_row = logits(0.55, 0.25, 0.13, 0.07)
    rows = torch.stack([one_row, one_row.roll(1) - 2])
    banned = torch.cat([torch.full((1,), -math.inf), logits(0.5, 0.3, 0.2)])
    yield case(logits(0.4, 0.25, 0.2, 0.1, 0.05), 2000, seed(), label="no knob turned")
    yield case(logits(0.96, 0.04), 1500, seed(), label="no knob turned, and a rare token")
    yield case(logits(*[1.0] * 200), 600, seed(), label="no knob turned, and 200 tokens")
    yield case(rows.expand(2, 2, 4), 400, seed(), label="two batch dimensions")
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
    yield case(rows, 100, seed(), top_k=9, label="top_k larger than the vocabulary")
    yield case(rows, 40, seed(), top_k=1, label="top_k = 1")
    yield case(rows, 40, seed(), top_p=0.0, label="top_p = 0")
    yield case(rows, 40, seed(), min_p=1.0, label="min_p = 1")
    yield case(logits(*[1.0] * 200), 300, seed(), top_k=120, label="120 of 200 tokens")
    yield case(rows[:1], 1, seed(), label="one draw from a batch of one row")


@exercise.oracle
def hf_distribution(logits, draws, seed, temperature=1.0, top_k=None, top_p=1.0, min_p=0.0):
    """The exact probabilities, from the warpers that transformers' generate() makes of these settings, in its order."""
    rows = logits.double().reshape(-1, logits.shape[-1])
    if temperature == 0:
        best = rows.argmax(-1)
        return {"probabilities": torch.nn.functional.one_hot(best, rows.shape[-1]).double().reshape(logits.shape)}
    warpers = [logits_processor("TemperatureLogitsWarper")(float(temperature))]
    warpers += [logits_processor("TopKLogitsWarper")(top_k)] if top_k else []
    warpers += [logits_processor("TopPLogitsWarper")(top_p)] if top_p < 1 else []
    warpers += [logits_processor("MinPLogitsWarper")(min_p)] if min_p else []
    warped = logits_processor("LogitsProcessorList")(warpers)(None, rows)
    return {"probabilities": warped.softmax(-1).reshape(logits.shape)}


@exercise.probe
def draw_many(sample, logits, draws, seed, **knobs):
    """Draws `draws` tokens from each row; twice 32 more from one seed, and then 32 that go on from there.

    And one from the first row alone, without a batch.
    """
    import torch

    def generator():
        return None if seed is None else torch.Generator().manual_seed(seed)

    def draw(times, source):
        return sample(logits.expand(times, *logits.shape), generator=source, **knobs)

    few = [draw(32, generator())]
    torch.default_generator.manual_seed(1_234_567)  # whoever listens to the global generator now hears something else
    going_on = generator()
    few += [draw(32, going_on), draw(32, going_on)]
    alone = sample(logits.reshape(-1, logits.shape[-1])[0], generator=generator(), **knobs)
    return {"tokens": draw(draws, generator()), "few": few[0], "again": few[1], "next": few[2], "alone": alone}


def _unlike_tokens(tokens, shape, vocab):
    """What keeps a result from being one token id a row, or an empty text."""
    if not isinstance(tokens, torch.Tensor):
        return "sample should return a tensor of token ids"
    if tokens.shape != shape:
        return f"{(*shape, vocab)} logits went in, so {shape} token ids should come out, not {tuple(tokens.shape)}"
    if tokens.dtype != torch.int64:
        return f"token ids are int64, not {tokens.dtype}"
    return f"a token id is outside 0 … {vocab - 1}" if tokens.min() < 0 or tokens.max() >= vocab else ""


def _replays(out):
    return torch.equal(out["few"], out["again"]), torch.equal(out["again"], out["next"])


def _counts(tokens, vocab):
    """How often each token came up: [rows, vocab]."""
    return torch.nn.functional.one_hot(tokens.reshape(len(tokens), -1), vocab).sum(0).double()


def _shape(value):
    return value.shape if isinstance(value, torch.Tensor) else type(value)


def _same_source(expected, got, vocab):
    a, b = expected["tokens"], got["tokens"]
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor) or (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    if _shape(expected["alone"]) != _shape(got["alone"]):
        return False
    if a.dtype != torch.int64 or a.max() >= vocab:
        return same(a, b)
    a, b = (_counts(tokens, vocab) for tokens in (a, b))
    near = ((a - b).abs().sum(-1) / a.sum(-1)).max() < max(0.15, 1.5 * math.sqrt(2 * vocab / float(a[0].sum())))
    pooled = (a + b) / (a + b).sum(-1, keepdim=True)
    unlike = max(_evidence(x, p) + _evidence(y, p) for x, y, p in zip(a, b, pooled, strict=True))
    return bool(near) and unlike < _bound(vocab) and _replays(expected) == _replays(got)


def _evidence(counts, probs):
    """n KL(frequencies || probs), in nats."""
    n = counts.sum()
    return float(torch.special.xlogy(counts, counts / (n * probs.clamp(min=1e-300))).sum())


_FALSE_ALARM = 1e-12


def _bound(k):
    """The x at which the theorem's right-hand side falls to the false-alarm rate."""
    free = max(k - 1, 1)
    x = float(free)
    while -x + free * math.log(math.e * x / free) > math.log(_FALSE_ALARM):
        x += 0.5
    return x


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


@exercise.agrees
def agrees(expected, got, one):
    """Whether the draws can come from the expected probabilities, and repeat as their generator says.

    Where `expected` holds draws, too (those of a known mistake), whether both look like one and the same mistake, and
    where `got` holds probabilities, too, whether these are the same.
    """
    if "probabilities" in got:
        return same(expected["probabilities"], got["probabilities"])
    if "probabilities" not in expected:
        return _same_source(expected, got, one.args[0].shape[-1])
    vocab = one.args[0].shape[-1]
    odd = _unlike_tokens(got["tokens"], (one.args[1], *one.args[0].shape[:-1]), vocab)
    odd = odd or _unlike_tokens(got["alone"], (), vocab)
    if odd:
        return odd
    probs, counts = expected["probabilities"].reshape(-1, vocab), _counts(got["tokens"], vocab)
    if bool((counts * (probs == 0)).any()):
        return "a token was drawn that the knobs should have ruled out"
    if max(_evidence(c, p) for c, p in zip(counts, probs, strict=True)) > _bound(vocab):
        return "the tokens don't come up as often as their probabilities say"
    unlike_its_seed = [law(got, one, None) for law in (generator_decides, generator_moves_on)]
    return next((told for told in unlike_its_seed if isinstance(told, str)), True)


@exercise.law("A token that the knobs rule out is never drawn")
def only_survivors(out, one, call):
    probs = hf_distribution(*one.args, **one.kwargs)["probabilities"].reshape(-1, one.args[0].shape[-1])
    return not bool((_counts(out["tokens"], probs.shape[-1]) * (probs == 0)).any())


@exercise.law("Temperature 0 always gives the best token")
def greedy_at_zero(out, one, call):
    if one.kwargs.get("temperature", 1.0) > 0:
        return None
    return bool((out["tokens"] == one.args[0].argmax(-1)).all())


exercise.law("The generator alone decides: the same state gives the same tokens")(generator_decides)

exercise.law("The generator moves on: the next draw is another one")(generator_moves_on)


@exercise.law("Each row of a batch gets a draw of its own")
def rows_are_independent(out, one, call):
    """Tokens of rows with the same logits, drawn in one call, are not all equal."""
    probs = hf_distribution(*one.args, **one.kwargs)["probabilities"]
    one_draw = float(probs.square().sum(-1).max())  # the chance that two rows get the same token
    if one.args[1] * math.log(one_draw) > math.log(_FALSE_ALARM):
        return None
    tokens = out["tokens"].reshape(len(out["tokens"]), -1)
    return not bool((tokens == tokens[:1]).all(0).any()) or "all rows of a batch got the same token"


def _multinomial(logits, generator):
    rows = logits.softmax(-1).reshape(-1, logits.shape[-1])
    return rows.multinomial(1, generator=generator).reshape(logits.shape[:-1])


def _sampler(*steps, draw=_multinomial):
    """A `sample` that takes these steps in this order and then draws."""

    def sample(logits, temperature=1.0, top_k=None, top_p=1.0, min_p=0.0, generator=None):
        for step in steps:
            logits = step(logits, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        return draw(logits, generator)

    return sample


exercise.mistake(
    "the best token is taken, whatever the knobs say",
    hint="That is greedy decoding. Draw from the softmax of the filtered logits.",
)(_sampler(draw=lambda logits, generator: logits.argmax(-1)))


def _temperature(logits, temperature, **knobs):
    return logits / temperature if temperature else right_greedy(logits)


def _k(logits, top_k, **knobs):
    return right_top_k(logits, top_k) if top_k else logits


def _p(logits, top_p, **knobs):
    return right_top_p(logits, top_p)


def _m(logits, min_p, **knobs):
    return right_min_p(logits, min_p)


def _logits_as_weights(logits, generator):
    weights = logits.clamp(min=0) + 1e-9
    return weights.reshape(-1, logits.shape[-1]).multinomial(1, generator=generator).reshape(logits.shape[:-1])


exercise.mistake(
    "the logits themselves are used as weights, without a softmax",
    hint="Logits are differences of log-probabilities. Softmax turns them into probabilities.",
)(_sampler(_temperature, _k, _p, _m, draw=_logits_as_weights))

exercise.mistake(
    "top-p comes before the temperature",
    hint=(
        "Temperature moves the probabilities that top-p and min-p look at. Here it comes first, as in "
        "transformers; llama.cpp does it last by default."
    ),
)(_sampler(_k, _p, _m, _temperature))

exercise.mistake(
    "top-p looks at the distribution as it was before top-k",
    hint="After top-k the survivors are renormalized, and top-p sums those probabilities.",
)(_sampler(_temperature, _p, _k, _m))

exercise.mistake(
    "min-p comes before top-p",
    hint=(
        "Cutting first makes the survivors' probabilities larger, so top-p then stops sooner. The order "
        "here is that of transformers: min-p last. (vLLM has it before top-p.)"
    ),
)(_sampler(_temperature, _m, _k, _p))

exercise.mistake(
    "the logits are multiplied by the temperature", hint="A low temperature should make the best token likelier."
)(_sampler(lambda x, temperature, **k: x * temperature if temperature else right_greedy(x), _k, _p, _m))

exercise.mistake("top_k is ignored", hint="None means no limit; a number is a limit.")(_sampler(_temperature, _p, _m))

exercise.mistake("top_p is ignored", hint="Is `top_p` used anywhere?")(_sampler(_temperature, _k, _m))

exercise.mistake("min_p is ignored", hint="Is `min_p` used anywhere?")(_sampler(_temperature, _k, _p))


def _zeros(logits, **knobs):
    kept = _m(_p(_k(logits, **knobs), **knobs), **knobs)
    return torch.where(kept > -INF, kept, 0.0)


exercise.mistake(
    "filtered tokens get the logit 0", hint="exp(0) = 1: a logit of 0 is a live token. Only exp(-inf) is 0."
)(_sampler(_temperature, _zeros))

exercise.mistake(
    "the generator is ignored", hint="Hand `generator` on to the function that draws, or nobody can repeat your run."
)(_sampler(_temperature, _k, _p, _m, draw=lambda logits, generator: _multinomial(logits, None)))


def _reseeded(logits, generator):
    return _multinomial(logits, generator.manual_seed(0) if generator else None)


exercise.mistake(
    "the generator is seeded anew inside",
    hint="The caller seeds the generator. Seeding it in every call gives the same token for ever.",
)(_sampler(_temperature, _k, _p, _m, draw=_reseeded))


def _inverse_cdf(logits, generator, shared=False):
    shape = (1,) * logits.dim() if shared else (*logits.shape[:-1], 1)
    sums = logits.double().softmax(-1).cumsum(-1)
    number = torch.rand(shape, generator=generator, dtype=torch.float64) * sums[..., -1:]
    return (sums <= number).sum(-1)


exercise.mistake("one random number serves the whole batch", hint="Each row needs its own random number.")(
    _sampler(_temperature, _k, _p, _m, draw=lambda x, g: _inverse_cdf(x, g, shared=True))
)


@exercise.mistake(
    "a uniform random number is held against probabilities that no longer sum to 1",
    hint="After filtering, divide by what is left: softmax the filtered logits.",
)
def sample_not_renormalised(logits, temperature=1.0, top_k=None, top_p=1.0, min_p=0.0, generator=None):
    warm = _temperature(logits, temperature)
    kept = _m(_p(_k(warm, top_k), top_p), min_p) > -INF
    sums = (warm.softmax(-1) * kept).cumsum(-1)
    number = torch.rand((*logits.shape[:-1], 1), generator=generator)
    return (sums <= number).sum(-1).clamp(max=logits.shape[-1] - 1)


exercise.mistake(
    "a dimension of size 1 is left over",
    hint="torch.multinomial gives [rows, 1]. The result has the logits' shape without the vocabulary.",
)(_sampler(_temperature, _k, _p, _m, draw=lambda x, g: _multinomial(x, g).unsqueeze(-1)))


def _unflattened(logits, generator):
    return logits.softmax(-1).multinomial(1, generator=generator).squeeze(-1)


def _first_row(logits, generator):
    first, rows = logits.reshape(-1, logits.shape[-1])[0], logits.shape[:-1]
    return first.softmax(-1).multinomial(max(rows.numel(), 1), True, generator=generator).reshape(rows)


exercise.mistake("every row is drawn from the first row's probabilities", hint="One row of probabilities each.")(
    _sampler(_temperature, _k, _p, _m, draw=_first_row)
)

exercise.mistake(
    "without a generator a new one with a fixed seed is made", hint="None means torch's global generator: pass it on."
)(
    _sampler(
        _temperature,
        _k,
        _p,
        _m,
        draw=lambda x, g: _multinomial(x, torch.Generator().manual_seed(0) if g is None else g),
    )
)

exercise.mistake("a temperature of 0 is taken for 1", hint="0 is no 'off': it always gives the best token.")(
    _sampler(lambda x, temperature, **k: x / (temperature or 1.0), _k, _p, _m)
)

exercise.mistake("one token serves the whole batch", hint="Each row gets a draw of its own.")(
    _sampler(
        _temperature, _k, _p, _m, draw=lambda x, g: _multinomial(x.reshape(-1, x.shape[-1])[0], g).expand(x.shape[:-1])
    )
)

exercise.mistake(
    "logits without a batch give a token id of shape [1]", hint="The logits' shape without the last dimension: none."
)(_sampler(_temperature, _k, _p, _m, draw=lambda x, g: _multinomial(x, g).reshape(x.shape[:-1] or 1)))

exercise.mistake("a top_k larger than the vocabulary is passed on to topk", hint="Use min(k, vocabulary size).")(
    _sampler(
        _temperature,
        lambda x, top_k, **k: x.masked_fill(x < x.topk(top_k or 1)[0][..., -1:], -INF) if top_k else x,
        _p,
        _m,
    )
)

exercise.mistake("token ids are int32", hint="torch.multinomial gives int64: keep it.")(
    _sampler(_temperature, _k, _p, _m, draw=lambda x, g: _multinomial(x, g).int())
)

exercise.mistake("the likeliest tokens are drawn least", hint="softmax of the logits, not of their negatives.")(
    _sampler(_temperature, _k, _p, _m, draw=lambda x, g: _multinomial(torch.where(x > -INF, -x, x), g))
)

exercise.mistake(
    "torch.multinomial gets more than two dimensions",
    hint="Flatten the leading dimensions into rows, draw, and give the ids their shape back.",
)(_sampler(_temperature, _k, _p, _m, draw=_unflattened))

exercise.mistake("probabilities are returned instead of token ids", hint="Draw one id a row from them.")(
    _sampler(_temperature, _k, _p, _m, draw=lambda logits, generator: logits.softmax(-1))
)

exercise.alternative(_sampler(_temperature, _k, _p, _m))


def _gumbel(logits, generator):
    noise = -torch.empty(logits.shape).exponential_(generator=generator).log()
    return (logits + noise).argmax(-1)


exercise.alternative(_sampler(_temperature, _k, _p, _m, draw=_gumbel))

exercise.alternative(_sampler(_temperature, _k, _p, _m, draw=_inverse_cdf))
