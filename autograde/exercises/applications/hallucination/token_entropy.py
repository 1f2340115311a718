"""`token_entropy(logits)`: How undecided the model is about each next token: an entropy, in nats."""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import pick, randn

exercise = Draft(
    "token_entropy",
    points=2,
    atol=1e-4,
    forbid=["torch.distributions"],
    hints=[
        "Entropy is the mean of -log p, weighted by p itself. Which of torch's functions gives log p without a log(0)?",
        "logs = logits.float().log_softmax(-1); then -(logs.exp() * logs).sum(-1). What is 0 times minus infinity?",
        "logs.masked_fill(logs == -torch.inf, 0) before the product: what is impossible adds 0, and sends back 0.",
    ],
)


@exercise.cases
def distributions(g):
    n = pick(g, 5, 9)
    yield case(2 * randn(g, 3, n), label="three tokens")
    masked = 2 * randn(g, 4, n)
    masked[torch.arange(4), torch.randperm(n, generator=g)[:4]] = -torch.inf
    masked[1, :2] = -torch.inf
    yield case(masked, label="some tokens are impossible")
    yield case(randn(g, 2, 3, n), label="a batch of texts")
    yield case(randn(g, n), label="one distribution")
    only = torch.full((2, n), -torch.inf)
    only[torch.arange(2), torch.randperm(n, generator=g)[:2]] = randn(g, 2)
    yield case(only, label="only one token is possible")
    yield case(torch.full((2, n), float(pick(g, 1, 5))), label="all tokens alike")
    yield case(200 + 3 * randn(g, 3, n), label="logits around 200")
    low = -150 + randn(g, 3, n)
    low[torch.arange(3), torch.randperm(n, generator=g)[:3]] = -torch.inf
    yield case(low, label="impossible tokens, and all others around -150")
    yield case(-300 + 60 * randn(g, 3, n), label="logits far apart")
    yield case(randn(g, 3, 1), label="a vocabulary of one token")
    yield case(1.5 * randn(g, 2, 5000), label="a vocabulary of 5,000 tokens")
    yield case(2 * randn(g, 1, n), label="one token")


@exercise.oracle
def torch_categorical(logits):
    from torch.distributions import Categorical

    return Categorical(logits=logits.double()).entropy().to(logits.dtype)


exercise.law("The result has the dtype of logits")(keeps_dtype)


@exercise.law("The same number added to all logits changes nothing")
def shifts_change_nothing(out, one, call):
    logits = one.args[0]
    if logits.dtype != torch.float64:
        return None
    return same(call(logits - 7.5), out)


@exercise.law("It lies between 0 and the logarithm of the vocabulary's size")
def in_range(out, one, call):
    logits = one.args[0]
    most = torch.tensor(float(logits.shape[-1])).log() * 1.01 + 0.01
    return bool(((out > -1e-3) & (out <= most)).all())


@exercise.law("An impossible token gets the gradient 0, not NaN")
def impossible_gets_none(out, one, call):
    logits = one.args[0]
    if not one.trained or not logits.isinf().any():
        return None
    found = call(logits, backward=((0,), (0,)))
    if not isinstance(found, list) or found[0] is None:
        return None  # cut off: another law says so
    return bool(found[0].isfinite().all() and (found[0][logits.isinf()] == 0).all())


def _entropy(logs):
    return -(logs.exp() * logs.masked_fill(logs == -torch.inf, 0))


def _entropies(logits, base=1.0, keep=False):
    return (_entropy(logits.float().log_softmax(-1)).sum(-1, keepdim=keep) / base).to(logits.dtype)


exercise.mistake("it is measured in bits", hint="The natural logarithm gives nats.")(
    lambda logits: _entropies(logits, torch.tensor(2.0).log())
)

exercise.mistake(
    "it is divided by the logarithm of the vocabulary's size", hint="In nats, not as a share of the most."
)(lambda logits: _entropies(logits, max(torch.tensor(float(logits.shape[-1])).log(), torch.tensor(1e-6))))

exercise.mistake("the sign is missing", hint="Logarithms of probabilities are negative: entropy is minus their mean.")(
    lambda logits: -_entropies(logits)
)


exercise.mistake(
    "the mean is taken over the vocabulary with equal weights", hint="Each -log p is weighted by p: then summed."
)(lambda logits: (_entropies(logits).float() / logits.shape[-1]).to(logits.dtype))


@exercise.mistake("an impossible token makes it NaN", hint="0 times minus infinity is NaN. An impossible token adds 0.")
def nan_where_impossible(logits):
    logs = logits.float().log_softmax(-1)
    return -(logs.exp() * logs).sum(-1).to(logits.dtype)


@exercise.mistake(
    "a small number is added inside the logarithm",
    hint="log(p + 1e-3) is off wherever p is small, and 5,000 small ones add up. log_softmax needs no such help.",
)
def with_epsilon(logits):
    p = logits.float().softmax(-1)
    return -(p * (p + 1e-3).log()).sum(-1).to(logits.dtype)


@exercise.mistake(
    "logits are normalized over another dimension", hint="The vocabulary is the last dimension: softmax(-1)."
)
def over_first(logits):
    logs = logits.float().log_softmax(0)
    return _entropy(logs).sum(-1).to(logits.dtype)


@exercise.mistake("the logits are taken for probabilities", hint="softmax makes probabilities of logits.")
def of_logits(logits):
    p = logits.float().clamp(min=1e-6)
    return -(p * p.log()).sum(-1).to(logits.dtype)


@exercise.mistake("the mean over all tokens comes back", hint="One number a token: sum over the vocabulary alone.")
def mean_of_all(logits):
    return _entropies(logits).float().mean().to(logits.dtype)


@exercise.mistake(
    "only the likeliest token's -log p is returned", hint="That is its surprisal. Entropy averages over all tokens."
)
def surprisal(logits):
    return -logits.float().log_softmax(-1).amax(-1).to(logits.dtype)


exercise.mistake("a dimension of size one is left at the end", hint="[..., vocab] becomes [...]: no keepdim.")(
    lambda logits: _entropies(logits, keep=True)
)


exercise.mistake("the result is always float32", hint="The dtype of logits: .to(logits.dtype).")(
    lambda logits: _entropy(logits.float().log_softmax(-1)).sum(-1)
)


@exercise.mistake(
    "gradients are NaN where a token is impossible",
    hint="nan_to_num mends the value, not the gradient: mask before you multiply.",
)
def mended_late(logits):
    p = logits.float().softmax(-1)
    return -(p * p.log()).nan_to_num(0.0).sum(-1).to(logits.dtype)


@exercise.mistake("the exponential of it comes back", hint="That is a perplexity: how many tokens it is like.")
def effective_tokens(logits):
    return _entropies(logits.double()).exp().to(logits.dtype)


@exercise.mistake(
    "exp overflows where logits are large", hint="exp(200) is infinite: log_softmax subtracts the largest first."
)
def overflows(logits):
    powers = logits.float().exp()
    p = powers / powers.sum(-1, keepdim=True)
    return -torch.where(p > 0, p * torch.where(p > 0, p, 1.0).log(), 0.0).sum(-1).to(logits.dtype)


exercise.mistake(
    "an impossible token has a logit of -100", hint="Nothing finite is impossible: other logits may lie below it."
)(lambda logits: _entropies(logits.masked_fill(logits == -torch.inf, -100.0)))


@exercise.mistake("it is one minus the sum of squares", hint="That is the Gini impurity. Entropy has a logarithm.")
def impurity(logits):
    return (1 - logits.float().softmax(-1).square().sum(-1)).to(logits.dtype)


@exercise.alternative
def by_two_sums(logits):
    """log Z minus the mean logit; double inside."""
    x = logits.double()
    p = x.softmax(-1)
    return (x.logsumexp(-1) - (p * x.masked_fill(x == -torch.inf, 0)).sum(-1)).to(logits.dtype)


@exercise.alternative
def by_the_mean_logit(logits):
    """As above, in the dtype that came, but for few digits."""
    x = logits.float() if logits.dtype is torch.bfloat16 else logits
    means = (x.softmax(-1) * torch.where(x.isneginf(), torch.zeros_like(x), x)).sum(-1)
    return (torch.logsumexp(x, -1) - means).to(logits.dtype)


@exercise.alternative
def by_where(logits):
    p = torch.exp(torch.log_softmax(logits.to(torch.float64), dim=-1))
    terms = torch.where(p > 0, p * torch.log(torch.where(p > 0, p, torch.ones_like(p))), torch.zeros_like(p))
    return -terms.sum(dim=-1).to(logits.dtype)
