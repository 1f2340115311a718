"""Wrong ways to forbid n-grams and to search contrastively, as complete implementations, and right ones that look
different."""

from __future__ import annotations

import torch
import torch.nn.functional as F

INF = torch.inf


# ---- no_repeat_ngram ------------------------------------------------------------------------------------------------


def _banning(bans, fill=-INF):
    """A function that fills the logits of the tokens that `bans(text, n)`, of a list, names."""
    def no_repeat_ngram(logits, ids, n):
        out = logits.clone().reshape(-1, logits.shape[-1])
        for row, text in zip(out, ids.reshape(len(out), -1).tolist(), strict=True):
            for token in bans(text, n):
                row[token] = fill
        return out.reshape(logits.shape)
    return no_repeat_ngram


def _grams(text, n):
    return [text[i : i + n] for i in range(len(text) - n + 1)]


def _prefix(text, n):
    """The last n - 1 tokens."""
    return text[len(text) - n + 1 :]


def _right(text, n):
    return [gram[-1] for gram in _grams(text, n) if gram[:-1] == _prefix(text, n)] if len(text) >= n else []


def _window_off(text, n):
    """The last n tokens are looked for, so what is forbidden is n + 1 long."""
    return _right(text, n + 1)


def _window_short(text, n):
    return _right(text, max(n - 1, 1))


def _minus_zero(text, n):
    """text[-(n - 1):] is the whole text where n is 1."""
    return [gram[-1] for gram in _grams(text, n) if gram[:-1] == text[-(n - 1):]] if len(text) >= n else []


def _unordered(text, n):
    return [gram[-1] for gram in _grams(text, n) if sorted(gram[:-1]) == sorted(_prefix(text, n))]


def _latest_gram_missed(text, n):
    return [gram[-1] for gram in _grams(text, n)[:-1] if gram[:-1] == _prefix(text, n)]


def _in_pieces(text, n):
    return [gram[-1] for gram in _grams(text, n)[::n] if gram[:-1] == _prefix(text, n)]


def _whole_gram(text, n):
    return [token for gram in _grams(text, n) if gram[:-1] == _prefix(text, n) for token in gram]


def _prefix_banned(text, n):
    return _prefix(text, n) if _right(text, n) else []


def _after_last_token(text, n):
    return _right(text, 2)


def _first_token_matches(text, n):
    """Only the prefix's first token is compared."""
    return [g[-1] for g in _grams(text, n) if n == 1 or g[0] == _prefix(text, n)[0]] if len(text) >= n else []


no_repeat = _banning(_right)
window_off = _banning(_window_off)
window_short = _banning(_window_short)
minus_zero = _banning(_minus_zero)
unordered = _banning(lambda text, n: _unordered(text, n) if len(text) >= n else [])
latest_gram_missed = _banning(_latest_gram_missed)
in_pieces = _banning(_in_pieces)
first_alone = _banning(lambda text, n: _right(text, n)[:1])
latest_alone = _banning(lambda text, n: _right(text, n)[-1:])
whole_gram = _banning(lambda text, n: _whole_gram(text, n) if len(text) >= n else [])
prefix_banned = _banning(_prefix_banned)
after_last_token = _banning(_after_last_token)
first_token_matches = _banning(_first_token_matches)
every_token_banned = _banning(lambda text, n: text)
short_text_banned = _banning(lambda text, n: _right(text, n) if len(text) >= n else text)
banned_with_zero = _banning(_right, fill=0.0)
banned_with_large = _banning(_right, fill=-1e9)


def bans_shared(logits, ids, n):
    out, rows = logits.clone(), ids.reshape(-1, ids.shape[-1]).tolist()
    out[..., [token for text in rows for token in _right(text, n)]] = -INF
    return out


def ban_in_float32(logits, ids, n):
    return no_repeat(logits.float(), ids, n)


def ban_by_unfold(logits, ids, n):
    length = ids.shape[-1]
    if length < n:
        return logits.clone()
    windows, prefix = ids.unfold(-1, n, 1), ids[..., length - n + 1 :]
    hit = (windows[..., :-1] == prefix.unsqueeze(-2)).all(-1)
    counts = torch.zeros_like(logits).scatter_add(-1, windows[..., -1], hit.to(logits.dtype))
    return logits.masked_fill(counts > 0, -INF)


def ban_by_table(logits, ids, n):
    """What followed each (n - 1)-gram, as a dict: fairseq's way."""
    out = logits.clone().reshape(-1, logits.shape[-1])
    for row, text in zip(out, ids.reshape(len(out), -1).tolist(), strict=True):
        after = {}
        for gram in _grams(text, n):
            after.setdefault(tuple(gram[:-1]), set()).add(gram[-1])
        if len(text) >= n - 1:
            row[list(after.get(tuple(_prefix(text, n)), ()))] = -INF
    return out.reshape(logits.shape)


# ---- contrastive_search_step ----------------------------------------------------------------------------------------


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


search = _search()
confidence_not_weighed = _search(weigh=lambda p, s, a: p - a * s)
alpha_swapped = _search(weigh=lambda p, s, a: a * p - (1 - a) * s)
likeness_rewarded = _search(weigh=lambda p, s, a: (1 - a) * p + a * s)
worst_taken = _search(pick=torch.argmin)
likeness_ignored = _search(weigh=lambda p, s, a: p)
log_probabilities_weighed = _search(confidence=lambda x, c: x.log_softmax(-1).gather(-1, c))
softmax_of_candidates = _search(confidence=lambda x, c: x.gather(-1, c).softmax(-1))
mean_likeness = _search(alike=lambda h, ctx: _cosines(h, ctx).mean(-1))
least_likeness = _search(alike=lambda h, ctx: _cosines(h, ctx).amin(-1))
latest_likeness = _search(alike=lambda h, ctx: _cosines(h, ctx)[..., -1])
latest_left_out = _search(alike=lambda h, ctx: _most_alike(h, ctx[..., :-1, :] if ctx.shape[-2] > 1 else ctx))
dot_products = _search(alike=lambda h, ctx: (h @ ctx.mT).amax(-1))
context_not_scaled = _search(alike=lambda h, ctx: (F.normalize(h, dim=-1) @ ctx.mT).amax(-1))
states_not_scaled = _search(alike=lambda h, ctx: (h @ F.normalize(ctx, dim=-1).mT).amax(-1))
scaled_across = _search(alike=lambda h, ctx: (F.normalize(h, dim=-2) @ F.normalize(ctx, dim=-2).mT).amax(-1))
size_of_likeness = _search(alike=lambda h, ctx: _cosines(h, ctx).abs().amax(-1))
distances = _search(alike=lambda h, ctx: -torch.cdist(h, ctx).amin(-1))


def place_returned(logits, candidates, states, context, alpha):
    return _weighed(_confidence(logits, candidates), _most_alike(states, context), alpha).argmax(-1)


def score_returned(logits, candidates, states, context, alpha):
    return _weighed(_confidence(logits, candidates), _most_alike(states, context), alpha).amax(-1)


def dimension_left(logits, candidates, states, context, alpha):
    return search(logits, candidates, states, context, alpha).unsqueeze(-1)


def search_by_cosine_similarity(logits, candidates, states, context, alpha):
    alike = F.cosine_similarity(states.unsqueeze(-2), context.unsqueeze(-3), dim=-1).max(-1).values
    score = _weighed(torch.softmax(logits, -1).gather(-1, candidates), alike, alpha)
    return torch.take_along_dim(candidates, score.argmax(-1, keepdim=True), -1)[..., 0]


def search_by_einsum(logits, candidates, states, context, alpha):
    lengths = states.norm(dim=-1).unsqueeze(-1) * context.norm(dim=-1).unsqueeze(-2)
    alike = (torch.einsum("...kd,...ld->...kl", states, context) / lengths).amax(-1)
    score = _weighed((logits - logits.logsumexp(-1, keepdim=True)).exp().gather(-1, candidates), alike, alpha)
    return (candidates * F.one_hot(score.argmax(-1), candidates.shape[-1])).sum(-1)
