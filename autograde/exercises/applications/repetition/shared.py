"""What exercises of the chapter repetition share."""

from __future__ import annotations

import torch

from autograde.exercise import Law, keeps_dtype, same


def occurred(logits, ids):
    """True for every token of the vocabulary that stands in its row's text."""
    return torch.zeros_like(logits, dtype=torch.bool).scatter(-1, ids, True)


def absent_untouched(out, one, call):
    logits, ids = one.args[:2]
    return torch.equal(out[~occurred(logits, ids)], logits[~occurred(logits, ids)])


ABSENT_UNTOUCHED = Law("Tokens that didn't occur keep their logits", absent_untouched)


def tells(one):
    """Whether a case is a batch of texts long enough for a law: each law costs a call."""
    return one.args[0].dim() == 2 and one.args[1].shape[-1] >= 4


def again(one, call, logits, ids):
    """The same call with other logits or another text."""
    return call(logits, ids, *one.args[2:], **one.kwargs)


def order_doesnt_matter(out, one, call):
    logits, ids = one.args[:2]
    return same(again(one, call, logits, ids.flip(-1)), out) if tells(one) else None


ANY_ORDER = Law("The order of the text doesn't matter", order_doesnt_matter)


def rows_alone(out, one, call):
    logits, ids = one.args[:2]
    if logits.dim() < 3:
        return None
    texts = logits[..., 0].numel()
    rows = zip(logits.reshape(texts, -1), ids.reshape(texts, -1), strict=True)
    return same(out, torch.stack([again(one, call, *row) for row in rows]).reshape(logits.shape))


OWN_HISTORY = Law("Each text of a batch has its own history", rows_alone)

OWN_DTYPE = Law("The result has the dtype of the logits", keeps_dtype)

INF = torch.inf


def by_row(function, logits, ids, *rest):
    """`function(logits [rows, vocab], ids [rows, length], …)` in float64, for any leading dimensions."""
    rows = logits.double().reshape(-1, logits.shape[-1])
    return function(rows, ids.reshape(len(rows), -1), *rest).reshape(logits.shape).to(logits.dtype)


def randn(g, *shape, scale=2.0):
    return torch.randn(*shape, generator=g) * scale


def some_tokens(g, below, *shape):
    return torch.randint(below, shape, generator=g)


def texts(g):
    """(logits, ids, what is special) for every shape and kind that both penalties should meet."""
    odd = randn(g, 2, 6)
    odd[0, 1] = odd[1, 3] = -INF
    odd[0, 4] = odd[1, 0] = 0.0
    yield randn(g, 8), some_tokens(g, 8, 5), "one text"
    yield randn(g, 3, 9), some_tokens(g, 9, 3, 6), "three texts"
    yield randn(g, 2, 2, 5), some_tokens(g, 5, 2, 2, 4), "two batch dimensions"
    yield randn(g, 2, 7).abs() + 1, some_tokens(g, 7, 2, 5), "all logits positive"
    yield -randn(g, 2, 7).abs() - 1, some_tokens(g, 7, 2, 5), "all logits negative"
    yield randn(g, 2, 6) + 1, torch.tensor([[2, 2, 2, 5], [0, 4, 0, 0]]), "one token three times"
    yield odd, torch.tensor([[1, 4, 2], [0, 3, 3]]), "-inf and 0 among the logits"
    yield randn(g, 2, 6, scale=3_000.0), some_tokens(g, 6, 2, 3), "huge logits"
    yield randn(g, 6, 2).t(), some_tokens(g, 6, 4, 2).t(), "not contiguous"
    yield randn(g, 1) + 3, torch.tensor([0]), "a vocabulary of one"
    yield randn(g, 300), some_tokens(g, 200, 1100), "a text of 1,100 tokens"
    yield randn(g, 2, 4), torch.tensor([[3, 1, 3] * 120, [0, 0, 2] * 120]), "some tokens hundreds of times"


def seen(logits, ids):
    """How often each token of the vocabulary stands in the row: float, shaped like the logits."""
    counts = torch.zeros_like(logits)
    return counts.scatter_add(-1, ids, torch.ones(ids.shape, dtype=logits.dtype))


def penalized(change):
    """A penalty that puts `change(logits, penalty)` in the place of the logits of tokens that occurred."""

    def repetition_penalty(logits, ids, penalty):
        return torch.where(seen(logits, ids) > 0, change(logits, penalty), logits)

    return repetition_penalty


def by_sign(logits, penalty):
    return torch.where(logits < 0, logits * penalty, logits / penalty)


right_penalty = penalized(by_sign)


def shared(ids):
    """The tokens of all rows, for each row."""
    return ids.reshape(-1).expand(*ids.shape[:-1], ids.numel())
