"""`contrastive_search_step(logits, candidates, states, context, alpha)`

Choose the next token: probable, and unlike anything that stands in the context.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.repetition.shared import randn

exercise = Draft(
    "contrastive_search_step",
    points=3,
    no_gradient="it is used while a model writes, where nothing is trained",
    dtypes=(torch.float64,),
    hints=[
        "Two numbers a candidate: how sure the model is of it, and how alike its state is to the most similar one of "
        "the context. Weigh them.",
        "probs = logits.softmax(-1), gathered at the candidates. Bring states and context to length 1 along the last "
        "dimension: then states @ context.mT are cosines, [..., k, length], and their maximum over the context counts.",
        "score = (1 - alpha) * probs - alpha * cosines.amax(-1); best = score.argmax(-1, keepdim=True); "
        "return candidates.gather(-1, best).squeeze(-1).",
    ],
)


def _dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def _scores(logits, candidates, states, context, alpha):
    """Of one text: (1 - alpha) p(v) - alpha max_j cos(h_v, h_j) for each candidate v, as a list."""
    highest = max(logits)
    total = sum(math.exp(z - highest) for z in logits)
    scores = []
    for token, h in zip(candidates, states, strict=True):
        p = math.exp(logits[token] - highest) / total
        cosines = [_dot(h, past) / math.sqrt(_dot(h, h) * _dot(past, past)) for past in context]
        scores.append((1 - alpha) * p - alpha * max(cosines))
    return scores


def _flat(logits, candidates, states, context):
    """The four inputs as lists of texts."""
    return (
        logits.double().reshape(-1, logits.shape[-1]).tolist(),
        candidates.reshape(-1, candidates.shape[-1]).tolist(),
        states.double().reshape(-1, *states.shape[-2:]).tolist(),
        context.double().reshape(-1, *context.shape[-2:]).tolist(),
    )


def _drawn(g, texts, k, length, d, vocab):
    """Random inputs of some texts. Vectors have very different lengths, and candidates any order."""
    logits = randn(g, texts, vocab, scale=1.2)
    candidates = torch.rand(texts, vocab, generator=g).argsort(-1)[:, :k]
    states, context = (randn(g, texts, m, d, scale=1.0) for m in (k, length))
    stretch = [torch.rand(texts, m, 1, generator=g) * 3 + 0.2 for m in (k, length)]
    return logits, candidates, states * stretch[0], context * stretch[1]


def _apart(scores):
    best = sorted(scores)[-2:]
    return len(best) < 2 or best[1] - best[0] > 0.01


def _clear(g, alpha, lead, k=4, length=6, d=4, vocab=9):
    """Inputs of shape `lead` whose two best scores are apart in every text."""
    kept, texts = [], math.prod(lead)
    while len(kept) < texts:
        drawn = _drawn(g, texts, k, length, d, vocab)
        scores = [_scores(*one, alpha) for one in zip(*_flat(*drawn), strict=True)]
        kept += [[x[i] for x in drawn] for i in range(texts) if _apart(scores[i])]
    return [torch.stack(x).reshape(*lead, *x[0].shape) for x in zip(*kept[:texts], strict=True)]


@exercise.cases
def search_cases(g):
    yield case(*_clear(g, 0.6, (12,)), 0.6, label="twelve texts, alpha 0.6")
    yield case(*_clear(g, 0.3, (12,)), 0.3, label="twelve texts, alpha 0.3")
    yield case(*_clear(g, 0.5, (2, 5), k=5, d=3), alpha=0.5, label="two batch dimensions, by keyword")
    yield case(*_clear(g, 0.0, (6,)), 0.0, label="alpha 0")
    yield case(*_clear(g, 1.0, (8,)), 1.0, label="alpha 1")
    yield case(*_clear(g, 0.6, ()), 0.6, label="one text")
    yield case(*_clear(g, 0.6, (6,), length=1), 0.6, label="a context of one token")
    yield case(*_clear(g, 0.6, (3,), k=1), 0.6, label="one candidate")
    yield case(*_clear(g, 0.6, (1,)), 0.6, label="a batch of one text")
    yield case(*_clear(g, 0.5, (4, 1)), 0.5, label="two batch dimensions, one of them of size one")
    logits, candidates, states, context = _clear(g, 0.6, (8,))
    yield case(logits, candidates, states * 1e-3, context * 1e-4, 0.6, label="tiny states")
    yield case(*_clear(g, 0.4, (6,), d=8, length=11, vocab=20), 0.4, label="wider states, a longer context")
    logits, *rest = _clear(g, 0.6, (5,), vocab=6)
    yield case(logits + 900.0, *rest, 0.6, label="huge logits")


@exercise.oracle
def paper(logits, candidates, states, context, alpha):
    """Su et al. 2022, arXiv:2202.06417: the candidate with the best score, one text after the other."""
    chosen = []
    for x, tokens, hidden, past in zip(*_flat(logits, candidates, states, context), strict=True):
        scores = _scores(x, tokens, hidden, past, alpha)
        chosen.append(tokens[scores.index(max(scores))])
    return torch.tensor(chosen).reshape(logits.shape[:-1])


@exercise.law("Token ids are int64")
def ids_are_int64(out, one, call):
    return out.dtype is torch.int64


@exercise.law("The answer is one of the candidates")
def is_a_candidate(out, one, call):
    return bool((one.args[1] == torch.as_tensor(out).unsqueeze(-1)).any(-1).all())


def _has_many(one):
    """Whether a case holds texts enough for a law: one decision alone says little, and each law costs a call."""
    return one.args[0][..., 0].numel() >= 10


def _alpha(one):
    return one.args[4] if len(one.args) > 4 else one.kwargs["alpha"]


def _step(call, one, logits=None, candidates=None, states=None, context=None, alpha=None):
    given = (logits, candidates, states, context)
    inputs = [old if new is None else new for new, old in zip(given, one.args, strict=False)]
    return call(*inputs, _alpha(one) if alpha is None else alpha)


@exercise.law("alpha = 0 takes the likeliest candidate")
def zero_is_likeliest(out, one, call):
    if not _has_many(one):
        return None
    logits, candidates = one.args[:2]
    likeliest = logits.gather(-1, candidates).argmax(-1, keepdim=True)
    return same(_step(call, one, alpha=0.0), candidates.gather(-1, likeliest)[..., 0])


@exercise.law("alpha = 1 doesn't look at the logits")
def one_ignores_logits(out, one, call):
    if not _has_many(one):
        return None
    return same(_step(call, one, alpha=1.0), _step(call, one, logits=one.args[0].flip(-1), alpha=1.0))


@exercise.law("A copy of what stands there is avoided")
def copy_is_avoided(out, one, call):
    """Where the first candidate's state is a copy of one in the context, a large alpha takes another candidate."""
    if not _has_many(one):
        return None
    logits, candidates, states, context = one.args[:4]
    if candidates.shape[-1] < 2:
        return None
    copies = states.clone()
    copies[..., 0, :] = 2 * context[..., -1, :]
    copies[..., 1, :] = -context.mean(-2) - context[..., -1, :]
    chosen = torch.as_tensor(_step(call, one, states=copies, alpha=0.99))
    return bool((chosen != candidates[..., 0]).all())


@exercise.law("How long the state vectors are doesn't matter")
def length_doesnt_matter(out, one, call):
    """A state counts by its direction."""
    if not _has_many(one):
        return None
    states, context = one.args[2:4]
    longer = [x * torch.linspace(0.3, 4.0, x.shape[-2]).to(x.dtype).unsqueeze(-1) for x in (states, context)]
    return same(_step(call, one, states=longer[0], context=longer[1]), out)


@exercise.law("The order of the candidates doesn't matter")
def candidates_in_any_order(out, one, call):
    if not _has_many(one):
        return None
    return same(_step(call, one, candidates=one.args[1].flip(-1), states=one.args[2].flip(-2)), out)


@exercise.law("The order of the context doesn't matter")
def context_in_any_order(out, one, call):
    if not _has_many(one):
        return None
    return same(_step(call, one, context=one.args[3].flip(-2)), out)


def _cosines(states, context):
    """[..., k, length]."""
    return F.normalize(states, dim=-1) @ F.normalize(context, dim=-1).mT


def _most_alike(states, context):
    return _cosines(states, context).amax(-1)


def _confidence(logits, candidates):
    return logits.softmax(-1).gather(-1, candidates)


def _weighed(confidence, alike, alpha):
    return (1 - alpha) * confidence - alpha * alike


def _search(confidence=_confidence, alike=_most_alike, weigh=_weighed, pick=torch.argmax):
    """A step made of its parts: the model's confidence, the likeness to the context, how they are weighed."""

    def contrastive_search_step(logits, candidates, states, context, alpha):
        score = weigh(confidence(logits, candidates), alike(states, context), alpha)
        return candidates.gather(-1, pick(score, dim=-1).unsqueeze(-1)).squeeze(-1)

    return contrastive_search_step


exercise.mistake(
    "the confidence isn't weighed with 1 - alpha",
    hint="Both terms are weighed: (1 - alpha) of the one, alpha of the other.",
)(_search(weigh=lambda p, s, a: p - a * s))

exercise.mistake("alpha and 1 - alpha are swapped", hint="alpha is the weight of the penalty: alpha = 0 is greedy.")(
    _search(weigh=lambda p, s, a: a * p - (1 - a) * s)
)

exercise.mistake("likeness is rewarded", hint="It is a penalty: subtract it.")(
    _search(weigh=lambda p, s, a: (1 - a) * p + a * s)
)

exercise.mistake("the worst score is taken", hint="The best score: argmax.")(_search(pick=torch.argmin))

exercise.mistake("the penalty is ignored", hint="The likeness to the context counts with weight alpha.")(
    _search(weigh=lambda p, s, a: p)
)

exercise.mistake(
    "logits or log-probabilities stand where probabilities belong",
    hint="The paper weighs the probability itself: like a cosine, it is never larger than 1.",
)(_search(confidence=lambda x, c: x.log_softmax(-1).gather(-1, c)))

exercise.mistake(
    "the softmax runs over the candidates alone", hint="The probability is the model's own, over the whole vocabulary."
)(_search(confidence=lambda x, c: x.gather(-1, c).softmax(-1)))

exercise.mistake(
    "the mean over the context is taken, not the maximum",
    hint="One copy in a long context must be enough: take the maximum.",
)(_search(alike=lambda h, ctx: _cosines(h, ctx).mean(-1)))

exercise.mistake(
    "the minimum over the context is taken", hint="What counts is the token of the context that is *most* alike."
)(_search(alike=lambda h, ctx: _cosines(h, ctx).amin(-1)))

exercise.mistake("only the latest token of the context is compared", hint="Compare with every token of the context.")(
    _search(alike=lambda h, ctx: _cosines(h, ctx)[..., -1])
)

exercise.mistake("the latest token of the context is left out", hint="Compare with every token of the context.")(
    _search(alike=lambda h, ctx: _most_alike(h, ctx[..., :-1, :] if ctx.shape[-2] > 1 else ctx))
)

exercise.mistake("dot products stand where cosines belong", hint="Divide by the lengths of both vectors.")(
    _search(alike=lambda h, ctx: (h @ ctx.mT).amax(-1))
)

exercise.mistake(
    "only the candidates' states are brought to length 1", hint="A cosine divides by the lengths of both vectors."
)(_search(alike=lambda h, ctx: (F.normalize(h, dim=-1) @ ctx.mT).amax(-1)))

exercise.mistake(
    "only the context's states are brought to length 1", hint="A cosine divides by the lengths of both vectors."
)(_search(alike=lambda h, ctx: (h @ F.normalize(ctx, dim=-1).mT).amax(-1)))

exercise.mistake(
    "the states are scaled over the tokens, not over the width",
    hint="The length of a vector is taken over its own numbers: dim=-1.",
)(_search(alike=lambda h, ctx: (F.normalize(h, dim=-2) @ F.normalize(ctx, dim=-2).mT).amax(-1)))

exercise.mistake(
    "the size of the cosine counts, without its sign",
    hint="The opposite direction is the least alike of all: no absolute value.",
)(_search(alike=lambda h, ctx: _cosines(h, ctx).abs().amax(-1)))

exercise.mistake(
    "distances stand where cosines belong", hint="The penalty is a cosine: direction counts, length doesn't."
)(_search(alike=lambda h, ctx: -torch.cdist(h, ctx).amin(-1)))


@exercise.mistake(
    "the candidate's place is returned instead of its id", hint="candidates.gather(-1, …) turns a place into a token."
)
def place_returned(logits, candidates, states, context, alpha):
    return _weighed(_confidence(logits, candidates), _most_alike(states, context), alpha).argmax(-1)


@exercise.mistake(
    "the score is returned instead of the token",
    hint="argmax says where the best score is, and `candidates` which token that is.",
)
def score_returned(logits, candidates, states, context, alpha):
    return _weighed(_confidence(logits, candidates), _most_alike(states, context), alpha).amax(-1)


search = _search()


@exercise.mistake(
    "a dimension of size 1 is left over", hint="One id a text: the shape of the logits without the vocabulary."
)
def dimension_left(logits, candidates, states, context, alpha):
    return search(logits, candidates, states, context, alpha).unsqueeze(-1)


def _nearly_unit(x):
    return x / (x.norm(dim=-1, keepdim=True) + 1e-2)


@exercise.mistake(
    "all dimensions of size 1 are gone, a batch of one as well", hint="squeeze(-1), not squeeze(): say which dimension."
)
def squeezed(logits, candidates, states, context, alpha):
    return _search()(logits, candidates, states, context, alpha).squeeze()


exercise.mistake(
    "a number is added to the lengths that is larger than some of them",
    hint="No state is zero: nothing needs to be added. If you do, let it be tiny.",
)(_search(alike=lambda h, ctx: (_nearly_unit(h) @ _nearly_unit(ctx).mT).amax(-1)))

exercise.mistake("the context of the first text is used for all", hint="Each text has its own context.")(
    lambda logits, candidates, states, context, alpha: search(
        logits, candidates, states, context.reshape(-1, *context.shape[-2:])[0].expand(context.shape), alpha
    )
)

exercise.mistake("token ids are int32", hint="The ids of `candidates`, as they are: int64.")(
    lambda *inputs, **knobs: search(*inputs, **knobs).int()
)

exercise.mistake("the candidates are sorted first", hint="Candidate i goes with state i: keep their order.")(
    lambda logits, candidates, states, context, alpha: search(
        logits, candidates.sort(-1).values, states, context, alpha
    )
)

exercise.alternative(search)


@exercise.alternative
def search_by_cosine_similarity(logits, candidates, states, context, alpha):
    alike = F.cosine_similarity(states.unsqueeze(-2), context.unsqueeze(-3), dim=-1).max(-1).values
    score = _weighed(torch.softmax(logits, -1).gather(-1, candidates), alike, alpha)
    return torch.take_along_dim(candidates, score.argmax(-1, keepdim=True), -1)[..., 0]


@exercise.alternative
def search_by_einsum(logits, candidates, states, context, alpha):
    lengths = states.norm(dim=-1).unsqueeze(-1) * context.norm(dim=-1).unsqueeze(-2)
    alike = (torch.einsum("...kd,...ld->...kl", states, context) / lengths).amax(-1)
    score = _weighed((logits - logits.logsumexp(-1, keepdim=True)).exp().gather(-1, candidates), alike, alpha)
    return (candidates * F.one_hot(score.argmax(-1), candidates.shape[-1])).sum(-1)
