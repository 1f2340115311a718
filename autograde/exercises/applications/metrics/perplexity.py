"""`perplexity(logits, labels)`: The perplexity of a batch of texts under a causal language model."""

from __future__ import annotations

import math

import torch

from autograde.borrowed import borrowed
from autograde.exercise import Draft, case, same

exercise = Draft(
    "perplexity",
    points=3,
    forbid=["transformers"],
    no_gradient="a metric: nothing is trained through it",
    rtol=1e-3,
    dtypes=(torch.float64, torch.bfloat16),
    hints=[
        "Which logits say something about token t? And about the very first token?",
        "logits[:, :-1].float().log_softmax(-1) against labels[:, 1:]; gather can't read -100, so select or clamp "
        "first.",
        "kept = labels[:, 1:] != -100; picked = log_probs.gather(-1, labels[:, 1:].clamp(min=0)[..., None])[..., 0]; "
        "(-picked[kept].mean()).exp()",
    ],
)


def _language(g, lengths, vocab, scale=2.0, left=False):
    """Logits that know something, and labels padded with -100 to the longest of `lengths`."""
    n = max(lengths)
    labels = torch.full((len(lengths), n), -100)
    for row, length in zip(labels, lengths, strict=True):
        place = slice(n - length, n) if left else slice(0, length)
        row[place] = torch.randint(vocab, (length,), generator=g)
    logits = scale * torch.randn(len(lengths), n, vocab, generator=g)
    # The first row is predicted well and the others badly: then it matters which tokens weigh how much.
    ahead = labels[0, 1:].clamp(min=0)[:, None]
    logits[0, :-1].scatter_add_(-1, ahead, torch.full(ahead.shape, 2.0))
    return logits, labels


@exercise.cases
def perplexity_cases(g):
    prompted, marks = _language(g, (9, 8), 7)
    marks[:, :4] = -100
    logits, labels = _language(g, (12,), 6, scale=1.0)
    certain = 30 * torch.randn(1, 6, 8, generator=g)
    target = certain.argmax(-1).roll(1, -1)
    yield case(*_language(g, (7,), 5), label="one text")
    yield case(*_language(g, (9, 3, 5), 6), label="texts of 9, 3 and 5 tokens, padded on the right")
    yield case(*_language(g, (4, 10), 6, left=True), label="texts of 4 and 10 tokens, padded on the left")
    yield case(prompted, marks, label="the prompt, the first four tokens, does not count")
    yield case(logits=_language(g, (11, 2), 9)[0], labels=_language(g, (11, 2), 9)[1], label="by keyword")
    yield case(logits.transpose(0, 1).contiguous().transpose(0, 1), labels, label="not contiguous")
    yield case(torch.zeros(2, 4, 50), torch.randint(50, (2, 4), generator=g), label="knows nothing: 50 tokens alike")
    yield case(certain * 10, target, label="logits in the hundreds, all tokens certain")
    yield case(*_language(g, (2,), 4), label="two tokens, so one prediction")
    few_digits, words = _language(g, (40, 25), 30, scale=3.0)
    yield case(few_digits.bfloat16(), words, label="bfloat16, two texts")
    yield case(*_language(g, (20, 30), 12, scale=7.0), label="surprises: probabilities below a thousandth")
    yield case(torch.randn(2, 5, 1, generator=g), torch.zeros(2, 5, dtype=torch.int64), label="a vocabulary of one")


@exercise.oracle
def causal_lm_perplexity(logits, labels):
    """exp of the loss that transformers' causal models compute; it shifts by itself."""
    loss = borrowed("transformers.loss.loss_utils", "ForCausalLMLoss")
    return float(loss(logits.double(), labels, logits.shape[-1]).double().exp())


@exercise.law("It is never below 1")
def at_least_one(out, one, call):
    return float(out) >= 1 - 1e-5


def _predicted(one):
    return one.args if one.args else (one.kwargs["logits"], one.kwargs["labels"])


@exercise.law("Who knows nothing has the vocabulary's size")
def knowing_nothing(out, one, call):
    logits, labels = _predicted(one)
    if len(labels) != 2:
        return None
    return same(float(call(torch.zeros_like(logits), labels)), float(logits.shape[-1]), rtol=1e-3)


@exercise.law("A constant on all logits of a place changes nothing")
def constant_is_neutral(out, one, call):
    logits, labels = _predicted(one)
    if len(labels) != 2:
        return None
    shift = 50 * torch.arange(logits.shape[1]).view(1, -1, 1)
    return same(float(call(logits.double() + shift, labels)), float(out), rtol=1e-3)


@exercise.law("What is predicted where nothing counts doesn't matter")
def ignored_is_silent(out, one, call):
    """Other logits where the next label doesn't count, and at the last place, change nothing."""
    logits, labels = _predicted(one)
    if bool((labels[:, 1:] != -100).all()):
        return None
    silent = torch.cat([labels[:, 1:] == -100, torch.ones(len(labels), 1, dtype=torch.bool)], 1)
    ramp = torch.linspace(-6, 6, logits.shape[-1])
    return same(float(call(logits.double() + silent[..., None] * ramp, labels)), float(out), rtol=1e-3)


@exercise.law("All tokens weigh alike, whatever text they stand in")
def tokens_weigh_alike(out, one, call):
    """Two texts in one batch: the logarithm is the mean over all their tokens."""
    logits, labels = _predicted(one)
    n = labels.shape[1]
    if n < 3 or logits.shape[-1] < 2 or len(labels) > 2:
        return None
    first = torch.full((1, n), -100)
    first[0, :2] = 0
    flat = torch.zeros(1, n, logits.shape[-1], dtype=torch.float64)
    counted = int((labels[:, 1:] != -100).sum())
    both = call(torch.cat([logits.double(), flat]), torch.cat([labels, first]))
    wanted = (counted * math.log(float(out)) + math.log(logits.shape[-1])) / (counted + 1)
    return same(float(both), math.exp(wanted), rtol=2e-3)


@exercise.law("bfloat16 logits are computed with in float32, or better")
def digits_are_kept(out, one, call):
    logits, labels = _predicted(one)
    if logits.dtype is not torch.bfloat16:
        return None
    wide = float(call(logits.double(), labels))
    return same(float(out), wide, rtol=1e-3) or f"{float(out):.5g}, where the same logits in float64 give {wide:.5g}"


def _surprise(logits, labels):
    """-log p of each label that counts, given logits at the same places: 1-D, and which places those are."""
    kept = labels != -100
    log_probs = logits.float().log_softmax(-1)
    return -log_probs.gather(-1, labels.clamp(min=0)[..., None])[..., 0], kept


@exercise.mistake(
    "nothing is shifted: each token is compared with its own place",
    hint="Place t predicts token t + 1: logits[:, :-1] against labels[:, 1:].",
)
def ppl_unshifted(logits, labels):
    s, kept = _surprise(logits, labels)
    return s[kept].mean().exp()


@exercise.mistake("the shift goes the wrong way", hint="logits[:, :-1] against labels[:, 1:], not the reverse.")
def ppl_shifted_back(logits, labels):
    s, kept = _surprise(logits[:, 1:], labels[:, :-1])
    return s[kept].mean().exp() if kept.any() else torch.tensor(math.nan)


def _shifted(reduce):
    """`reduce(surprise, kept)`, both [rows, n - 1], of logits and the labels one place later."""

    def perplexity(logits, labels):
        return reduce(*_surprise(logits[:, :-1], labels[:, 1:]))

    return perplexity


exercise.mistake("token 0 doesn't count", hint="labels != -100: 0 is a token like others.")(
    lambda logits, labels: _shifted(lambda s, kept: s[kept].mean().exp())(logits, labels.masked_fill(labels == 0, -100))
)


def _row_means(s, kept):
    counted = kept.any(1)
    return ((s * kept).sum(1) / kept.sum(1).clamp(min=1))[counted]


exercise.mistake(
    "each text's mean is taken first, and then the mean of the texts",
    hint="A token of a short text would weigh more. One mean over all tokens that count.",
)(_shifted(lambda s, kept: _row_means(s, kept).mean().exp()))

exercise.mistake("perplexities of texts are averaged", hint="Average the surprise of all tokens, then take exp once.")(
    _shifted(lambda s, kept: _row_means(s, kept).exp().mean())
)

exercise.mistake("1/p is averaged over the tokens", hint="The geometric mean: exp of the mean of -log p.")(
    _shifted(lambda s, kept: s[kept].exp().mean())
)

exercise.mistake("bfloat16 logits are computed with in bfloat16", hint="logits.float() before anything else.")(
    lambda logits, labels: torch.nn.functional.cross_entropy(logits[:, :-1].mT, labels[:, 1:]).exp()
)

exercise.mistake("only the first text counts", hint="One mean over the tokens of all texts.")(
    lambda logits, labels: ppl_right(logits[:1], labels[:1])
)

exercise.mistake("the prediction of the last token is left out", hint="logits[:, :-1] against labels[:, 1:], no less.")(
    _shifted(lambda s, kept: s[:, :-1][kept[:, :-1]].mean().exp())
)

exercise.mistake(
    "a token doesn't count if nothing counts before it", hint="What counts is the label that is predicted, no other."
)(lambda logits, labels: _shifted(lambda s, kept: s[kept & (labels[:, :-1] != -100)].mean().exp())(logits, labels))

exercise.mistake("padding is counted, as token 0", hint="Leave out labels of -100.")(
    _shifted(lambda s, kept: s.mean().exp())
)

exercise.mistake(
    "the sum is divided by all places, padding included", hint="Divide by the number of labels that count."
)(_shifted(lambda s, kept: ((s * kept).sum() / kept.numel()).exp()))


@exercise.mistake(
    "first labels are counted although nothing predicts them", hint="Shift first, then count: labels[:, 1:] != -100."
)
def ppl_counts_first_label(logits, labels):
    """The sum is right; the number of tokens includes the first labels, which nothing predicts."""
    s, kept = _surprise(logits[:, :-1], labels[:, 1:])
    return (s[kept].sum() / (labels != -100).sum()).exp()


exercise.mistake("the loss is returned without exp", hint="exp of the mean.")(_shifted(lambda s, kept: s[kept].mean()))

exercise.mistake("2 is raised to nats", hint="2 goes with log2, e with log. Mixed, the number is neither.")(
    _shifted(lambda s, kept: 2 ** s[kept].mean())
)

exercise.mistake("exp is taken of the sum", hint="Of the mean: a long text isn't worse.")(
    _shifted(lambda s, kept: s[kept].sum().exp())
)

exercise.mistake("the sign is wrong", hint="exp(-mean of log p), which is at least 1.")(
    _shifted(lambda s, kept: (-s[kept].mean()).exp())
)


@exercise.mistake(
    "exp is taken of logits as they are", hint="exp(89) is infinite in float32: use log_softmax or logsumexp."
)
def ppl_naive_softmax(logits, labels):
    kept = labels[:, 1:] != -100
    powers = logits[:, :-1].float().exp()
    probs = (powers / powers.sum(-1, keepdim=True)).gather(-1, labels[:, 1:].clamp(min=0)[..., None])[..., 0]
    return (-probs.log())[kept].mean().exp()


@exercise.mistake("a small number is added to the probabilities", hint="log_softmax needs no such crutch.")
def ppl_with_floor(logits, labels):
    kept = labels[:, 1:] != -100
    probs = logits[:, :-1].float().softmax(-1).gather(-1, labels[:, 1:].clamp(min=0)[..., None])[..., 0]
    return (-(probs + 1e-3).log())[kept].mean().exp()


ppl_right = _shifted(lambda s, kept: s[kept].mean().exp())


@exercise.mistake("a softmax is taken before the log_softmax", hint="One is enough.")
def ppl_softmax_twice(logits, labels):
    return ppl_right(logits.float().softmax(-1), labels)


@exercise.mistake(
    "logits are taken for log-probabilities", hint="They add up to nothing in particular: log_softmax first."
)
def ppl_without_softmax(logits, labels):
    kept = labels[:, 1:] != -100
    picked = logits[:, :-1].float().gather(-1, labels[:, 1:].clamp(min=0)[..., None])[..., 0]
    return (-picked[kept].mean()).exp()


exercise.alternative(ppl_right)

exercise.alternative(_shifted(lambda s, kept: torch.exp((s * kept).sum() / kept.sum())))


@exercise.alternative
def ppl_by_cross_entropy(logits, labels):
    flat = logits[:, :-1].reshape(-1, logits.shape[-1]).double()
    return float(torch.nn.functional.cross_entropy(flat, labels[:, 1:].reshape(-1)).exp())


@exercise.alternative
def ppl_by_loop(logits, labels):
    total, count = 0.0, 0
    for row, marks in zip(logits.tolist(), labels.tolist(), strict=True):
        for scores, label in zip(row, marks[1:], strict=False):
            if label != -100:
                top = max(scores)
                total += top + math.log(sum(math.exp(score - top) for score in scores)) - scores[label]
                count += 1
    return math.exp(total / count)
