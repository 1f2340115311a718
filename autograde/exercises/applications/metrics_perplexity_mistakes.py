"""Wrong perplexities, as complete implementations, and a few right ones that look different."""

from __future__ import annotations

import math

import torch


def _surprise(logits, labels):
    """-log p of each label that counts, given logits at the same places: 1-D, and which places those are."""
    kept = labels != -100
    log_probs = logits.float().log_softmax(-1)
    return -log_probs.gather(-1, labels.clamp(min=0)[..., None])[..., 0], kept


def _shifted(reduce):
    """`reduce(surprise, kept)`, both [rows, n - 1], of logits and the labels one place later."""
    def perplexity(logits, labels):
        return reduce(*_surprise(logits[:, :-1], labels[:, 1:]))
    return perplexity


def _row_means(s, kept):
    counted = kept.any(1)
    return ((s * kept).sum(1) / kept.sum(1).clamp(min=1))[counted]


ppl_right = _shifted(lambda s, kept: s[kept].mean().exp())
ppl_by_mask = _shifted(lambda s, kept: torch.exp((s * kept).sum() / kept.sum()))
ppl_of_row_means = _shifted(lambda s, kept: _row_means(s, kept).mean().exp())
ppl_mean_of_perplexities = _shifted(lambda s, kept: _row_means(s, kept).exp().mean())
ppl_mean_over_tokens = _shifted(lambda s, kept: s[kept].exp().mean())
ppl_over_padding = _shifted(lambda s, kept: s.mean().exp())
ppl_divided_by_all = _shifted(lambda s, kept: ((s * kept).sum() / kept.numel()).exp())
ppl_is_loss = _shifted(lambda s, kept: s[kept].mean())
ppl_two_to_nats = _shifted(lambda s, kept: 2 ** s[kept].mean())
ppl_of_sum = _shifted(lambda s, kept: s[kept].sum().exp())
ppl_inverted = _shifted(lambda s, kept: (-s[kept].mean()).exp())
def ppl_unshifted(logits, labels):
    s, kept = _surprise(logits, labels)
    return s[kept].mean().exp()


def ppl_shifted_back(logits, labels):
    s, kept = _surprise(logits[:, 1:], labels[:, :-1])
    return s[kept].mean().exp() if kept.any() else torch.tensor(math.nan)


def ppl_counts_first_label(logits, labels):
    """The sum is right; the number of tokens includes the first labels, which nothing predicts."""
    s, kept = _surprise(logits[:, :-1], labels[:, 1:])
    return (s[kept].sum() / (labels != -100).sum()).exp()


def ppl_naive_softmax(logits, labels):
    kept = labels[:, 1:] != -100
    powers = logits[:, :-1].float().exp()
    probs = (powers / powers.sum(-1, keepdim=True)).gather(-1, labels[:, 1:].clamp(min=0)[..., None])[..., 0]
    return (-probs.log())[kept].mean().exp()


def ppl_with_floor(logits, labels):
    kept = labels[:, 1:] != -100
    probs = logits[:, :-1].float().softmax(-1).gather(-1, labels[:, 1:].clamp(min=0)[..., None])[..., 0]
    return (-(probs + 1e-3).log())[kept].mean().exp()


def ppl_softmax_twice(logits, labels):
    return ppl_right(logits.float().softmax(-1), labels)


def ppl_without_softmax(logits, labels):
    kept = labels[:, 1:] != -100
    picked = logits[:, :-1].float().gather(-1, labels[:, 1:].clamp(min=0)[..., None])[..., 0]
    return (-picked[kept].mean()).exp()


def ppl_by_cross_entropy(logits, labels):
    flat = logits[:, :-1].reshape(-1, logits.shape[-1]).double()
    return float(torch.nn.functional.cross_entropy(flat, labels[:, 1:].reshape(-1)).exp())


def ppl_by_loop(logits, labels):
    total, count = 0.0, 0
    for row, marks in zip(logits.tolist(), labels.tolist(), strict=True):
        for scores, label in zip(row, marks[1:], strict=False):
            if label != -100:
                top = max(scores)
                total += top + math.log(sum(math.exp(score - top) for score in scores)) - scores[label]
                count += 1
    return math.exp(total / count)
