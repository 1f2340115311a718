"""What exercises of the chapter distillation share."""

from __future__ import annotations

import torch

from autograde.exercise import Law, keeps_dtype

TEACHER_LEARNS = "the teacher learns, too"
DETACH = "A gradient reaches the teacher, which is not to be trained: teacher.detach(), or torch.no_grad() around it."

SHOULD_BE_STILL = "No gradient reaches the teacher"


def teacher_is_still(at):
    """A law: the floating-point input number `at` is not trained through the result."""

    def holds(out, one, call):
        if one.made:
            return None
        found = call(*one.args, backward=((0,), (at,)), **one.kwargs)
        return not isinstance(found, list) or found[0] is None or not bool(found[0].any()) or "a gradient reaches it"

    return Law(SHOULD_BE_STILL, holds)


OWN_DTYPE = Law("The result has the dtype of the student's numbers", keeps_dtype, everywhere=True)


def randn(g, *shape, scale=2.0):
    return torch.randn(shape, generator=g) * scale


def some_kept(g, *shape, share=0.6):
    """A mask in which the first position counts, the last one doesn't, and no two rows count equally many if two."""
    mask = torch.rand(shape, generator=g) < share
    mask.view(-1)[0], mask.view(-1)[-1] = True, False
    if len(shape) > 1:
        rows = mask.view(-1, shape[-1])
        rows[0, :-1] = True
        rows[-1] = False
        rows[-1, 0] = True
    return mask


def mean_of_rows(each, kept):
    """Each row's own mean first, then the mean of those."""
    if each.dim() < 2:
        return each[kept].mean()
    rows = zip(each.reshape(-1, each.shape[-1]), kept.reshape(-1, each.shape[-1]), strict=True)
    return torch.stack([row[keep].mean() for row, keep in rows if bool(keep.any())]).mean()


def kept_mean(each, kept):
    return each[kept].mean()


def over_all(each, kept):
    """Padding is averaged, too."""
    return each.mean()


def counted_all(each, kept):
    """Padding adds nothing but is counted."""
    return (each * kept).sum() / each.numel()


def summed(each, kept):
    return each[kept].sum()


def by_rows(each, kept):
    """As reduction="batchmean" divides: by the first dimension alone."""
    return each[kept].sum() / (each.shape[0] if each.dim() > 1 else kept.sum())
