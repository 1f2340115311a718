"""`speculative_accept(target, draft, tokens, uniforms)`

How many drafted tokens stand, and the law from which the next one is drawn, so that nothing of the draft's law is left.
"""

from __future__ import annotations

import types

import torch

from autograde.borrowed import borrowed
from autograde.exercise import Draft, case, same
from autograde.exercises.shared import pick, randn

exercise = Draft(
    "speculative_accept",
    points=4,
    dtypes=[torch.float64],
    no_gradient="nobody trains through a decision",
    hints=[
        "How much more likely than the draft does the target find each drafted token? What does a token that the draft "
        "gives too often deserve?",
        "Token x stands with probability min(1, p(x) / q(x)): when u < p(x) / q(x). At the first that falls, what the "
        "draft gave too little of is left over: max(p - q, 0), made to sum to 1.",
        "stands = uniforms < p_x / q_x; n = int(stands.int().cumprod(0).sum()). If n == len(tokens): the law is "
        "target[n]; else left = (target[n] - draft[n]).clamp(min=0), and the law left / left.sum().",
    ],
)


def _laws(g, rows, size, spread=1.5):
    return torch.softmax(spread * randn(g, rows, size), -1)


@exercise.cases
def drafts(g):
    def some(gamma, size, label, falls=None, spread=1.5, sparse=False):
        """`falls`: the place at which the first token must fall; gamma: none does."""
        target, draft = _laws(g, gamma + 1, size, spread), _laws(g, gamma, size, spread)
        if sparse:  # laws that were cut, as by top-k
            target = target * (torch.rand(target.shape, generator=g) < 0.6)
            target[:, 0] += 0.1
            draft = draft * (torch.rand(draft.shape, generator=g) < 0.6)
            draft[:, 0] += 0.1
            target, draft = target / target.sum(-1, keepdim=True), draft / draft.sum(-1, keepdim=True)
        tokens, uniforms = torch.multinomial(draft, 1, generator=g)[:, 0], torch.rand(gamma, generator=g)
        for i in range(gamma if falls is not None else 0):
            ratio, mine = target[i] / draft[i], draft[i] > 0
            if i == falls:  # a token that the draft likes too much
                tokens[i] = torch.where(mine, ratio, torch.inf).argmin()
                uniforms[i] = float(ratio[tokens[i]]) + (1 - float(ratio[tokens[i]])) * (0.2 + 0.7 * pick(g, 0, 9) / 9)
            elif i < falls and i % 2:  # a doubtful token, which a low number lets stand
                tokens[i] = torch.where(mine & (ratio > 0), ratio, torch.inf).argmin()
                uniforms[i] = 0.5 * float(ratio[tokens[i]].clamp(max=1))
            elif i < falls or i == falls + 1:
                tokens[i] = torch.where(mine, ratio, -1.0).argmax()
                uniforms[i] = 0.95
        return case(target, draft, tokens, uniforms, label=label)

    yield some(4, 6, "the second of four falls", falls=1)
    yield some(3, 5, "all three stand", falls=3)
    yield some(4, 7, "the first falls, the next would stand", falls=0)
    yield some(5, 4, "the last falls", falls=4)
    yield some(1, 5, "one token, which stands", falls=1)
    yield some(1, 5, "one token, which falls", falls=0)
    yield some(2, 9, "laws with zeros", falls=1, sparse=True)
    for i in range(3):
        yield some(4, 6, f"drawn by chance, {i + 1}", spread=0.8)
    target, draft, never = _laws(g, 3, 5), _laws(g, 2, 5), pick(g, 0, 4)
    target[0, never] = 0
    target[0] /= target[0].sum()
    yield case(target, draft, torch.tensor([never, 1]), torch.zeros(2), label="u = 0, and the target never says it")
    law = _laws(g, 3, 6)
    yield case(law, law[:2].clone(), torch.tensor([4, 1]), torch.tensor([0.999, 0.99]), label="the draft is the target")
    yield some(8, 2000, "a large vocabulary", falls=5, spread=3.0)
    target, draft = _laws(g, 3, 4), _laws(g, 2, 4)
    draft[0], target[0] = torch.tensor([0.5, 0.25, 0.125, 0.125]), torch.tensor([0.25, 0.5, 0.25, 0.0])
    yield case(target, draft, torch.tensor([0, 1]), torch.tensor([0.75, 0.5]), label="half of what the draft asks for")
    target = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.3, 0.4, 0.1, 0.2], [0.1, 0.2, 0.3, 0.4]])
    draft = torch.tensor([[0.5, 0.2, 0.2, 0.1], [0.6, 0.2, 0.1, 0.1]])
    order = torch.randperm(4, generator=g)
    tokens = order.argsort()[:1].expand(2).clone()
    yield case(target[:, order], draft[:, order], tokens, torch.tensor([0.6, 0.1]), label="the likeliest, and another")
    sure, tokens = torch.ones(3, 1), torch.zeros(2, dtype=torch.long)
    yield case(sure, sure[:2].clone(), tokens, torch.rand(2, generator=g), label="a vocabulary of one token")


class _Told:
    """torch, as far as the library's function sees it: its draws are those of the case, and its last law is kept."""

    def __init__(self, uniforms):
        self.uniforms, self.law = uniforms, None

    def __getattr__(self, name):
        return getattr(torch, name)

    def rand_like(self, ratios):
        above = torch.nextafter(self.uniforms, torch.ones_like(self.uniforms))  # there u <= ratio, here u < ratio
        return above.reshape(ratios.shape)

    def multinomial(self, law, num_samples):
        self.law = law[0]
        return torch.zeros(1, num_samples, dtype=torch.long)


@exercise.oracle
def assisted_generation(target, draft, tokens, uniforms):
    """What transformers' generate(assistant_model=…) does, with these draws."""
    function, told = borrowed("transformers.generation.utils", "_speculative_sampling"), _Told(uniforms)
    seen = types.FunctionType(function.__code__, {**function.__globals__, "torch": told}, None, function.__defaults__)
    _, accepted = seen(tokens[None], draft.log()[None], len(tokens), target.log()[None])
    return int(accepted), told.law


@exercise.law("The law sums to 1")
def _sums_to_one(out, one, call):
    return same(torch.as_tensor(out[1]).sum().double(), torch.tensor(1.0, dtype=torch.float64), atol=1e-4)


@exercise.law("A token that stands or is drawn has exactly the target's law", essential=True)
def _exact_in_law(out, one, call):
    """Each drafted token has a threshold below which it stands. What stands and what is drawn add up to the target."""
    target, draft, _, _ = one.args
    size = target.shape[1]
    if size > 9 or len(draft) > 2:
        return None
    after = torch.full((1, size), 1 / size, dtype=target.dtype)
    total, p, q = torch.zeros(size, dtype=torch.float64), target[0].double(), draft[0].double()
    for x in q.nonzero()[:, 0].tolist():
        threshold = min(1.0, float(p[x] / q[x]))
        total[x] += q[x] * threshold
        for u in (threshold * 0.99, threshold + 0.01 * (1 - threshold)):
            if u == 0.0 or u == 1.0:  # a token that never, or always, stands has one side only
                continue
            made = torch.cat([target[:1], after]), draft[:1], torch.tensor([x]), torch.tensor([u], dtype=target.dtype)
            n, law = call(*made)
            if int(n) != (u < threshold):
                told = "falls" if u < threshold else "stands"
                return f"token {x} with p / q = {float(p[x] / q[x]):.3g} {told} at {u:.3g}"
            if u >= threshold:
                total += q[x] * (1 - threshold) * torch.as_tensor(law).double()
    return same(total, p, rtol=1e-3, atol=1e-3)


def _deciding(stands=None, law=None, count=None, last=None):
    """A wrong decision: the right one with a part replaced."""

    def speculative_accept(target, draft, tokens, uniforms):
        at = torch.arange(len(tokens))
        p, q = target[at, tokens], draft[at, tokens]
        good = stands(p, q, uniforms, target, draft, tokens) if stands else uniforms < p / q
        n = count(good) if count else int(good.int().cumprod(0).sum())
        if n == len(tokens):
            return n, last(target, draft) if last else target[n]
        left = law(target[n], draft[n], n, target, tokens) if law else (target[n] - draft[n]).clamp(min=0)
        return n, left / left.sum()

    return speculative_accept


exercise.mistake(
    "a token falls only if the target would not draw it at all: u < p, not u < p / q",
    hint="The draft has drawn it already, with probability q: it stands with probability p / q.",
)(_deciding(stands=lambda p, q, u, *_: u < p))

exercise.mistake(
    "a token stands also where u equals p / q", hint="u < p / q: with u = 0 a token of probability 0 would stand."
)(_deciding(stands=lambda p, q, u, *_: u <= p / q))

exercise.mistake("the ratio is upside down", hint="What the target likes more than the draft always stands: p / q.")(
    _deciding(stands=lambda p, q, u, *_: u < q / p)
)

exercise.mistake("a token falls where u is below p / q", hint="It stands with probability min(1, p / q).")(
    _deciding(stands=lambda p, q, u, *_: u > p / q)
)

exercise.mistake(
    "a token stands only if it is the target's likeliest",
    hint="That is greedy decoding. Here a token stands with probability min(1, p / q).",
)(_deciding(stands=lambda p, q, u, target, draft, tokens: tokens == target[:-1].argmax(-1)))

exercise.mistake("a token stands if p ≥ q, and else falls", hint="Where p < q it still stands with probability p / q.")(
    _deciding(stands=lambda p, q, u, *_: p >= q)
)

exercise.mistake(
    "the next token is drawn from the target's law itself",
    hint="What stood has used up a part of it: max(p - q, 0), made to sum to 1, is left.",
)(_deciding(law=lambda p, q, n, target, tokens: p))

exercise.mistake("the next token is drawn from the draft's law", hint="From what the draft gave too little of.")(
    _deciding(law=lambda p, q, n, target, tokens: q)
)

exercise.mistake("what is left is |p - q|", hint="Where the draft gave too much, nothing is left: max(p - q, 0).")(
    _deciding(law=lambda p, q, n, target, tokens: (p - q).abs())
)

exercise.mistake("what is left is max(q - p, 0)", hint="What the draft gave too little of: p - q.")(
    _deciding(law=lambda p, q, n, target, tokens: (q - p).clamp(min=0))
)

exercise.mistake(
    "what is left is the softmax of p - q", hint="Negative differences are 0, and the rest is divided by its sum."
)(_deciding(law=lambda p, q, n, target, tokens: (p - q).softmax(-1)))

exercise.mistake(
    "what is left is min(p, q)", hint="That is what both give. Left over is what q gave too little of: p - q."
)(_deciding(law=lambda p, q, n, target, tokens: torch.minimum(p, q)))

exercise.mistake("p is kept whole where it exceeds q", hint="Only the difference p - q is left over there.")(
    _deciding(law=lambda p, q, n, target, tokens: p * (p > q))
)

exercise.mistake("a token stands with probability p / (p + q)", hint="With probability min(1, p / q).")(
    _deciding(stands=lambda p, q, u, *_: u < p / (p + q))
)


def _other_row(place):
    """The law after a rejection, from another row than that of the fallen token."""

    def speculative_accept(target, draft, tokens, uniforms):
        n, law = _deciding()(target, draft, tokens, uniforms)
        if n == len(tokens):
            return n, law
        i, j = place(n, len(tokens))
        left = (target[i] - draft[j]).clamp(min=0)
        return n, left / left.sum()

    return speculative_accept


exercise.mistake("what is left is always that of the first place", hint="Of the place whose token fell, n.")(
    _other_row(lambda n, gamma: (0, 0))
)

exercise.mistake("what is left is that of the place behind the fallen token", hint="Of the place whose token fell, n.")(
    _other_row(lambda n, gamma: (min(n + 1, gamma - 1),) * 2)
)

exercise.mistake(
    "the last row of target is used after a rejection, too", hint="Row n of both: that of the fallen token."
)(_other_row(lambda n, gamma: (gamma, n)))


@exercise.mistake(
    "the likeliest token of the law gets everything", hint="Return the law itself: a token is drawn later."
)
def likeliest(target, draft, tokens, uniforms):
    n, law = _deciding()(target, draft, tokens, uniforms)
    return n, torch.zeros_like(law).index_fill(0, law.argmax(), 1.0)


exercise.mistake(
    "the fallen token alone is taken out of the target's law", hint="Subtract the whole of q, not one token."
)(_deciding(law=lambda p, q, n, target, tokens: p.clone().index_fill(0, tokens[n], 0.0)))

exercise.mistake(
    "all tokens that would stand are counted, also behind one that fell",
    hint="Behind a token that falls nothing stands: they were drafted for another text.",
)(_deciding(count=lambda good: int(good.sum())))

exercise.mistake(
    "only the first token is tried",
    hint="Go on until one falls: all tokens before it stand.",
)(_deciding(count=lambda good: int(good[0])))

exercise.mistake("the fallen token is counted, too", hint="Count those before the first that falls.")(
    _deciding(count=lambda good: min(int(good.int().cumprod(0).sum()) + 1, len(good)))
)

exercise.mistake(
    "where all stand, the law of the last drafted place is given",
    hint="target has one row more than draft: the law behind the last drafted token.",
)(_deciding(last=lambda target, draft: target[-2]))


@exercise.mistake("the law is not made to sum to 1", hint="Divide max(p - q, 0) by its sum.")
def not_normalised(target, draft, tokens, uniforms):
    n, _ = _deciding()(target, draft, tokens, uniforms)
    return n, target[n] if n == len(tokens) else (target[n] - draft[n]).clamp(min=0)


@exercise.mistake("all uniforms are taken to be the first", hint="Each drafted token has a number of its own.")
def one_uniform(target, draft, tokens, uniforms):
    return _deciding()(target, draft, tokens, uniforms[:1].expand(len(tokens)))


exercise.alternative(_deciding())


@exercise.alternative
def token_by_token(target, draft, tokens, uniforms):
    for i, x in enumerate(tokens.tolist()):
        p, q = target[i], draft[i]
        if uniforms[i] * q[x] >= p[x]:
            left = torch.where(p > q, p - q, torch.zeros_like(p))
            return i, left / left.sum()
    return len(tokens), target[-1]
