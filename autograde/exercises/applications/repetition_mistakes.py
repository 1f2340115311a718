"""Wrong ways to measure and to penalise repetition, as complete implementations, and right ones that look different."""

from __future__ import annotations

from collections import Counter

import torch

# ---- repetition_rate ------------------------------------------------------------------------------------------------


def _grams(tokens, n):
    """Every n-gram of a list, as tuples."""
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def _by_row(measure):
    """A measure of one list of tokens, taken of every row."""
    def repetition_rate(tokens, n=4):
        rows = tokens.reshape(-1, tokens.shape[-1])
        return torch.tensor([float(measure(row.tolist(), n)) for row in rows]).reshape(tokens.shape[:-1])
    return repetition_rate


def _of_grams(measure, grams=_grams):
    """A measure of one list of n-grams; 0 where there is none."""
    def of_tokens(tokens, n):
        found = grams(tokens, n)
        return measure(found, tokens) if found else 0.0
    return _by_row(of_tokens)


def _duplicates(found, _tokens=None):
    return 1 - len(set(found)) / len(found)


def _stated(found, _tokens):
    """The share of n-grams that occur more than once, the first time included."""
    counts = Counter(found)
    return sum(counts[gram] > 1 for gram in found) / len(found)


def _next_to_it(tokens, n):
    """Repetitions count only where they follow at once."""
    found = _grams(tokens, n)
    return sum(i >= n and found[i] == found[i - n] for i in range(len(found))) / len(found) if found else 0.0


def _kinds_that_recur(found, _tokens):
    counts = Counter(found)
    return sum(count > 1 for count in counts.values()) / len(counts)


rate = _of_grams(_duplicates)
distinct_share = _of_grams(lambda found, tokens: len(set(found)) / len(found))
first_time_counted = _of_grams(_stated)
kinds_that_recur = _of_grams(_kinds_that_recur)
over_length = _of_grams(lambda found, tokens: (len(found) - len(set(found))) / len(tokens))
over_distinct = _of_grams(lambda found, tokens: (len(found) - len(set(found))) / len(set(found)))
in_percent = _of_grams(lambda found, tokens: 100 * _duplicates(found))
counted_not_shared = _of_grams(lambda found, tokens: len(found) - len(set(found)))
last_gram_missed = _of_grams(_duplicates, lambda tokens, n: _grams(tokens, n)[:-1])
cut_in_pieces = _of_grams(_duplicates, lambda tokens, n: _grams(tokens, n)[::n])
one_too_long = _of_grams(_duplicates, lambda tokens, n: _grams(tokens, n + 1))
one_too_short = _of_grams(_duplicates, lambda tokens, n: _grams(tokens, n - 1) if n > 1 else _grams(tokens, 1))
single_tokens = _of_grams(_duplicates, lambda tokens, n: _grams(tokens, 1) if len(tokens) >= n else [])
order_ignored = _of_grams(_duplicates, lambda tokens, n: [tuple(sorted(gram)) for gram in _grams(tokens, n)])
added_up = _of_grams(_duplicates, lambda tokens, n: [sum(gram) for gram in _grams(tokens, n)])
glued = _of_grams(_duplicates, lambda tokens, n: ["".join(map(str, gram)) for gram in _grams(tokens, n)])
only_next_to_it = _by_row(_next_to_it)
empty_is_all = _by_row(lambda tokens, n: _duplicates(_grams(tokens, n)) if len(tokens) >= n else 1.0)
empty_divides = _by_row(lambda tokens, n: _duplicates(_grams(tokens, n)))


def rows_averaged(tokens, n=4):
    return rate(tokens, n).mean()


def rows_pooled(tokens, n=4):
    rows = tokens.reshape(-1, tokens.shape[-1]).tolist()
    found = [gram for row in rows for gram in _grams(row, n)]
    return torch.full(tokens.shape[:-1], _duplicates(found) if found else 0.0)


def rate_by_unfold(tokens, n=4):
    """Every n-gram beside every other: a repetition equals one of those before it."""
    if tokens.shape[-1] < n:
        return torch.zeros(tokens.shape[:-1])
    grams = tokens.unfold(-1, n, 1)
    same = (grams.unsqueeze(-2) == grams.unsqueeze(-3)).all(-1)
    return same.tril(-1).any(-1).float().mean(-1)


def rate_by_unique(tokens, n=4):
    windows = tokens.unfold(-1, n, 1).reshape(-1, tokens.shape[-1] - n + 1, n) if tokens.shape[-1] >= n else []
    shares = [1 - len(torch.unique(row, dim=0)) / len(row) for row in windows]
    return torch.tensor(shares or [0.0] * tokens[..., 0].numel()).reshape(tokens.shape[:-1])


# ---- repetition_penalty ---------------------------------------------------------------------------------------------


def _seen(logits, ids):
    """How often each token of the vocabulary stands in the row: float, shaped like the logits."""
    counts = torch.zeros_like(logits)
    return counts.scatter_add(-1, ids, torch.ones(ids.shape, dtype=logits.dtype))


def _penalised(change):
    """A penalty that puts `change(logits, penalty)` in the place of the logits of tokens that occurred."""
    def repetition_penalty(logits, ids, penalty):
        return torch.where(_seen(logits, ids) > 0, change(logits, penalty), logits)
    return repetition_penalty


def _by_sign(logits, penalty):
    return torch.where(logits < 0, logits * penalty, logits / penalty)


penalty = _penalised(_by_sign)
all_divided = _penalised(lambda x, p: x / p)
all_multiplied = _penalised(lambda x, p: x * p)
wrong_way_round = _penalised(lambda x, p: torch.where(x < 0, x / p, x * p))
subtracted = _penalised(lambda x, p: x - p)
log_subtracted = _penalised(lambda x, p: x - torch.tensor(p).log().to(x.dtype))
banned = _penalised(lambda x, p: torch.full_like(x, -torch.inf) if p != 1 else x)
reward_ignored = _penalised(lambda x, p: _by_sign(x, max(p, 1.0)))
log_probabilities = _penalised(lambda x, p: x.log_softmax(-1) * p)


def unseen_penalised(logits, ids, penalty):
    return torch.where(_seen(logits, ids) > 0, logits, _by_sign(logits, penalty))


def whole_vocabulary(logits, ids, penalty):
    return _by_sign(logits, penalty)


def once_each_time(logits, ids, penalty):
    power = penalty ** _seen(logits, ids)
    return torch.where(logits < 0, logits * power, logits / power)


def last_token_alone(logits, ids, penalty_):
    return penalty(logits, ids[..., -1:], penalty_)


def last_token_forgotten(logits, ids, penalty_):
    return penalty(logits, ids[..., :-1], penalty_)


def first_token_forgotten(logits, ids, penalty_):
    return penalty(logits, ids[..., 1:], penalty_)


def _shared(ids):
    """The tokens of all rows, for each row."""
    return ids.reshape(-1).expand(*ids.shape[:-1], ids.numel())


def history_shared(logits, ids, penalty_):
    return penalty(logits, _shared(ids), penalty_)


def penalty_in_float32(logits, ids, penalty_):
    return penalty(logits.float(), ids, penalty_)


def as_probabilities(logits, ids, penalty_):
    return penalty(logits, ids, penalty_).softmax(-1)


def penalty_by_gather(logits, ids, penalty):
    old = logits.gather(-1, ids)
    return logits.scatter(-1, ids, torch.where(old > 0, old / penalty, old * penalty))


def penalty_by_loop(logits, ids, penalty):
    out = logits.clone().reshape(-1, logits.shape[-1])
    for row, tokens in zip(out, ids.reshape(len(out), -1).tolist(), strict=True):
        for token in set(tokens):
            row[token] = row[token] * penalty if row[token] < 0 else row[token] / penalty
    return out.reshape(logits.shape)


# ---- frequency_presence_penalty -------------------------------------------------------------------------------------


def _taken(amount, count=_seen):
    """A penalty that takes `amount(counts, frequency, presence)` from every logit."""
    def frequency_presence_penalty(logits, ids, frequency=0.0, presence=0.0):
        return logits - amount(count(logits, ids), frequency, presence).to(logits.dtype)
    return frequency_presence_penalty


def _openai(c, frequency, presence):
    return c * frequency + (c > 0) * presence


taken = _taken(_openai)
presence_by_count = _taken(lambda c, f, p: c * f + c * p)
frequency_once = _taken(lambda c, f, p: (c > 0) * (f + p))
knobs_swapped = _taken(lambda c, f, p: c * p + (c > 0) * f)
added = _taken(lambda c, f, p: -_openai(c, f, p))
presence_for_all = _taken(lambda c, f, p: c * f + p)
presence_for_absent = _taken(lambda c, f, p: c * f + (c == 0) * p)
presence_forgotten = _taken(lambda c, f, p: c * f)
frequency_forgotten = _taken(lambda c, f, p: (c > 0) * p)
negatives_ignored = _taken(lambda c, f, p: _openai(c, max(f, 0.0), max(p, 0.0)))
share_of_text = _taken(lambda c, f, p: _openai(c / c.sum(-1, keepdim=True).clamp(min=1), f, 0) + (c > 0) * p)
log_of_count = _taken(lambda c, f, p: c.log1p() * f + (c > 0) * p)
second_time_first = _taken(lambda c, f, p: (c - 1).clamp(min=0) * f + (c > 1) * p)
counts_shared = _taken(_openai, lambda x, ids: _seen(x, _shared(ids)))
latest_not_counted = _taken(_openai, lambda x, ids: _seen(x, ids[..., :-1]))


def as_factor(logits, ids, frequency=0.0, presence=0.0):
    return penalty(logits, ids, 1 + presence) - _seen(logits, ids) * frequency


def taken_from_probabilities(logits, ids, frequency=0.0, presence=0.0):
    return logits.softmax(-1) - _openai(_seen(logits, ids), frequency, presence)


def taken_in_float32(logits, ids, frequency=0.0, presence=0.0):
    return taken(logits.float(), ids, frequency, presence)


def taken_by_one_hot(logits, ids, frequency=0.0, presence=0.0):
    counts = torch.nn.functional.one_hot(ids, logits.shape[-1]).sum(-2)
    return logits - counts.to(logits.dtype) * frequency - counts.clamp(max=1).to(logits.dtype) * presence


def taken_by_loop(logits, ids, frequency=0.0, presence=0.0):
    out = logits.clone().reshape(-1, logits.shape[-1])
    for row, tokens in zip(out, ids.reshape(len(out), -1).tolist(), strict=True):
        for token, count in Counter(tokens).items():
            row[token] -= count * frequency + presence
    return out.reshape(logits.shape)
