"""How no_repeat_ngram and contrastive_search_step are judged: oracles, cases and laws.

The oracle of the n-grams is transformers' processor. Contrastive search has left transformers' own code, so the step is
written out from the paper, in float64; random cases keep the two best scores apart, so that rounding never decides.
"""

from __future__ import annotations

import math

import torch
from transformers import NoRepeatNGramLogitsProcessor

from autograde.exercise import case, same
from autograde.exercises.applications.repetition_checks import by_row, randn

INF = torch.inf
VOCAB = 12


# ---- no_repeat_ngram ------------------------------------------------------------------------------------------------


def hf_no_repeat(logits, ids, n):
    processor = NoRepeatNGramLogitsProcessor(n)
    return by_row(lambda rows, texts: processor(texts, rows), logits, ids)


def _spelled(g, *patterns):
    """Patterns of letters as tokens, one a row: in a row the same letter is the same token."""
    rows = []
    for pattern in patterns:
        names = dict(zip(dict.fromkeys(pattern), torch.randperm(VOCAB, generator=g).tolist(), strict=False))
        rows.append([names[letter] for letter in pattern])
    return torch.tensor(rows if len(rows) > 1 else rows[0])


def ngram_cases(g):
    masked = randn(g, 2, VOCAB)
    masked[0, 3] = masked[1, 7] = -INF
    four = _spelled(g, "abcab", "abaab", "ccccc", "abcde").reshape(2, 2, 5)
    yield case(randn(g, VOCAB), _spelled(g, "abcdab"), 3, label="one text: ab was followed by c")
    yield case(randn(g, VOCAB), _spelled(g, "abcabdeab"), 3, label="ab was followed by c and by d")
    yield case(randn(g, VOCAB) - 3, _spelled(g, "abacba"), 2, label="pairs, all logits below 0")
    yield case(randn(g, VOCAB), _spelled(g, "xaa"), 2, label="pairs, the latest of them in the way")
    yield case(randn(g, VOCAB), _spelled(g, "bacdab"), 3, label="ba, and now ab")
    yield case(randn(g, VOCAB), _spelled(g, "abcdefbc"), 4, label="only the last two of three tokens match")
    yield case(randn(g, VOCAB), _spelled(g, "abcdaefabc"), 4, label="abc was followed by d")
    yield case(randn(g, 2, 2, VOCAB), four, n=3, label="two batch dimensions, by keyword")
    yield case(masked, _spelled(g, "abcdabc", "qrstuqr"), 3, label="two texts, -inf among the logits")
    yield case(randn(g, VOCAB), _spelled(g, "abca"), 1, label="n = 1")
    yield case(randn(g, 2, VOCAB), _spelled(g, "ab", "aa"), 4, label="shorter than one n-gram")
    yield case(randn(g, VOCAB), _spelled(g, "aaa"), 3, label="as long as one n-gram")
    yield case(randn(g, VOCAB, 2, scale=2_000.0).t(), _spelled(g, "abcab", "abbab"), 3, label="huge, not contiguous")
    yield case(randn(g, VOCAB).bfloat16(), _spelled(g, "abcabdab"), 3, label="bfloat16")


def _ngram(one):
    return one.args[2] if len(one.args) > 2 else one.kwargs["n"]


def only_banned(out, one, call):
    x = one.args[0]
    return bool(((out == x) | (out == -INF)).all()) or "an entry is neither its logit nor -inf"


def never_twice(out, one, call):
    """Greedy writing under the rule, four tokens on: no n-gram that is completed stood there before."""
    n, x, text = _ngram(one), *one.args[:2]
    if x.dim() > 1 or n != 3:
        return None
    for _ in range(4):
        allowed = call(x, text, n)
        if bool((allowed == -INF).all()):
            return True
        text = torch.cat([text, allowed.argmax(-1, keepdim=True)])
        grams = [tuple(text[i : i + n].tolist()) for i in range(len(text) - n + 1)]
        if grams and grams[-1] in grams[:-1]:
            return f"a text of {len(text)} tokens got one that completes a {n}-gram for the second time"
    return True


def fresh_text_is_free(out, one, call):
    """Where no token stood twice, only n = 1 forbids anything."""
    n, x = _ngram(one), one.args[0]
    if n == 1 or x.dim() != 2:
        return None
    fresh = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(n))[:7].expand(*x.shape[:-1], 7)
    return same(call(x, fresh, n), x)


def ones_ban_what_occurred(out, one, call):
    logits, ids = one.args[:2]
    if logits.dim() != 2:
        return None
    banned = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, ids, True)
    return same(call(logits, ids, 1), logits.masked_fill(banned, -INF))


def short_text_is_free(out, one, call):
    logits, ids = one.args[:2]
    if logits.dim() != 2:
        return None
    n = max(_ngram(one), 2)
    return same(call(logits, ids[..., : n - 1], n), logits)


# ---- contrastive_search_step ----------------------------------------------------------------------------------------


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


def _dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def paper(logits, candidates, states, context, alpha):
    """Su et al. 2022, arXiv:2202.06417: the candidate with the best score, one text after the other."""
    chosen = []
    for x, tokens, hidden, past in zip(*_flat(logits, candidates, states, context), strict=True):
        scores = _scores(x, tokens, hidden, past, alpha)
        chosen.append(tokens[scores.index(max(scores))])
    return torch.tensor(chosen).reshape(logits.shape[:-1])


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


def search_cases(g):
    yield case(*_clear(g, 0.6, (12,)), 0.6, label="twelve texts, alpha 0.6")
    yield case(*_clear(g, 0.3, (12,)), 0.3, label="twelve texts, alpha 0.3")
    yield case(*_clear(g, 0.5, (2, 5), k=5, d=3), alpha=0.5, label="two batch dimensions, by keyword")
    yield case(*_clear(g, 0.0, (6,)), 0.0, label="alpha 0")
    yield case(*_clear(g, 1.0, (8,)), 1.0, label="alpha 1")
    yield case(*_clear(g, 0.6, ()), 0.6, label="one text")
    yield case(*_clear(g, 0.6, (6,), length=1), 0.6, label="a context of one token")
    yield case(*_clear(g, 0.6, (3,), k=1), 0.6, label="one candidate")
    yield case(*_clear(g, 0.4, (6,), d=8, length=11, vocab=20), 0.4, label="wider states, a longer context")
    logits, *rest = _clear(g, 0.6, (5,), vocab=6)
    yield case(logits + 900.0, *rest, 0.6, label="huge logits")


def _alpha(one):
    return one.args[4] if len(one.args) > 4 else one.kwargs["alpha"]


def _has_many(one):
    """Whether a case holds texts enough for a law: one decision alone says little, and each law costs a call."""
    return one.args[0][..., 0].numel() >= 10


def _step(call, one, logits=None, candidates=None, states=None, context=None, alpha=None):
    given = (logits, candidates, states, context)
    inputs = [old if new is None else new for new, old in zip(given, one.args, strict=False)]
    return call(*inputs, _alpha(one) if alpha is None else alpha)


def is_a_candidate(out, one, call):
    return bool((one.args[1] == torch.as_tensor(out).unsqueeze(-1)).any(-1).all())


def zero_is_likeliest(out, one, call):
    if not _has_many(one):
        return None
    logits, candidates = one.args[:2]
    likeliest = logits.gather(-1, candidates).argmax(-1, keepdim=True)
    return same(_step(call, one, alpha=0.0), candidates.gather(-1, likeliest)[..., 0])


def one_ignores_logits(out, one, call):
    if not _has_many(one):
        return None
    return same(_step(call, one, alpha=1.0), _step(call, one, logits=one.args[0].flip(-1), alpha=1.0))


def length_doesnt_matter(out, one, call):
    """A state counts by its direction."""
    if not _has_many(one):
        return None
    states, context = one.args[2:4]
    longer = [x * torch.linspace(0.3, 4.0, x.shape[-2]).to(x.dtype).unsqueeze(-1) for x in (states, context)]
    return same(_step(call, one, states=longer[0], context=longer[1]), out)


def candidates_in_any_order(out, one, call):
    if not _has_many(one):
        return None
    return same(_step(call, one, candidates=one.args[1].flip(-1), states=one.args[2].flip(-2)), out)


def context_in_any_order(out, one, call):
    if not _has_many(one):
        return None
    return same(_step(call, one, context=one.args[3].flip(-2)), out)


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
