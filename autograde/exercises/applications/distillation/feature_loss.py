"""`feature_loss(student, teacher, mask, projection=None)`

One minus the cosine of the student's and the teacher's hidden states, the mean over tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.distillation.shared import (
    DETACH,
    OWN_DTYPE,
    TEACHER_LEARNS,
    counted_all,
    kept_mean,
    mean_of_rows,
    over_all,
    randn,
    some_kept,
    summed,
    teacher_is_still,
)

exercise = Draft(
    "feature_loss",
    points=3,
    hints=[
        "Two vectors of one token: how alike are their directions? And if they have different widths?",
        "projection is the weight of a linear layer, [teacher's width, student's width]: F.linear(student, projection) "
        "has the teacher's width. Choose the tokens with the mask before you divide by any length.",
        "s = student if projection is None else F.linear(student, projection); "
        "return (1 - F.cosine_similarity(s[mask], teacher[mask].detach(), dim=-1)).mean()",
    ],
)


@exercise.cases
def hidden_states(g):
    def some(*shape, d=4, wide=None, zero=True):
        student, teacher = randn(g, *shape, d), randn(g, *shape, wide or d)
        mask = some_kept(g, *shape)
        if zero:  # what a model gives at padding may be nothing at all
            student, teacher = student * mask[..., None], teacher * mask[..., None]
        return (student, teacher, mask) + ((randn(g, wide, d, scale=1.0),) if wide else ())

    yield case(*some(3, 5), label="a batch, zeros at padding")
    yield case(*some(2, 6, d=3, wide=5), label="a narrower student, zeros at padding")
    yield case(*some(5, d=6, zero=False), label="one text")
    yield case(*some(2, 4, d=4, wide=4, zero=False), label="a projection between equal widths")
    yield case(*some(2, 2, 4, d=5, wide=3, zero=False), label="a wider student, two batch dimensions")
    student, teacher, mask, projection = some(2, 5, d=3, wide=4, zero=False)
    yield case(student, teacher, mask, projection=projection, label="the projection by keyword")
    yield case(randn(g, 1, 1, 3), randn(g, 1, 1, 3), torch.tensor([[True]]), label="one token")
    student, teacher, mask = some(3, 4, zero=False)
    yield case(student * 1e3, teacher * 1e-3, mask, label="vectors of very different lengths")
    yield case(teacher, -teacher * 2, mask, label="opposite directions")
    yield case(*some(4, 50, d=40, wide=60, zero=False), label="many tokens, 40 and 60 wide")


@exercise.oracle
def cosine_embedding(student, teacher, mask, projection=None):
    """DistilBERT's: torch's cosine embedding loss, all pairs meant to be alike."""
    dtype, student = student.dtype, student.double()
    if projection is not None:
        student = F.linear(student, projection.double())
    pairs = student[mask], teacher.detach().double()[mask]
    return F.cosine_embedding_loss(*pairs, torch.ones(int(mask.sum()))).to(dtype)


def _rest(one):
    return [*one.args[2:], *one.kwargs.values()]


exercise.law(teacher_is_still(1))


@exercise.law("Between 0 and 2, and 0 where the directions agree")
def in_range(out, one, call):
    student, (mask, *projection) = one.args[0], _rest(one)
    if one.made:
        return None
    twin = F.linear(student, projection[0]) if projection else student
    agreed = call(student, twin * 3, mask, *projection)
    return -1e-4 <= float(out) <= 2 + 1e-4 and same(agreed, torch.tensor(0.0), 0, 1e-3)


@exercise.law("How long the vectors are doesn't matter")
def length_is_free(out, one, call):
    student, teacher, *rest = [*one.args[:2], *_rest(one)]
    return None if one.made else same(call(student * 4, teacher / 3, *rest), out, 1e-3, 1e-4)


@exercise.law("What stands at padding doesn't matter")
def padding_is_silent(out, one, call):
    student, teacher, mask, *rest = [*one.args[:2], *_rest(one)]
    if one.made or bool(mask.all()):
        return None
    keep = mask[..., None]
    return same(call(torch.where(keep, student, 5 - student), torch.where(keep, teacher, 1.0), mask, *rest), out)


exercise.law(OWN_DTYPE)


def _cosine(s, t):
    return F.cosine_similarity(s, t, dim=-1)


def _loss(each=lambda s, t: 1 - _cosine(s, t), mean=kept_mean, project=F.linear, still=True):
    """A loss from its parts: a number a token, the mean of them, how the student is made as wide as the teacher."""

    def feature_loss(student, teacher, mask, projection=None):
        s = student if projection is None else project(student, projection)
        return mean(each(s, teacher.detach() if still else teacher), mask)

    return feature_loss


right = _loss()

exercise.mistake("the cosine itself is returned", hint="A loss falls as the two agree: 1 - cosine.")(
    _loss(each=_cosine)
)
exercise.mistake("minus the cosine is returned", hint="1 - cosine: 0 where the directions agree.")(
    _loss(each=lambda s, t: -_cosine(s, t))
)
exercise.mistake("the squared distance is taken", hint="The direction counts, not the length: a cosine.")(
    _loss(each=lambda s, t: (s - t).square().mean(-1))
)
exercise.mistake("the dot product isn't divided by the lengths", hint="A cosine divides by both lengths.")(
    _loss(each=lambda s, t: 1 - (s * t).sum(-1))
)
exercise.mistake("only the student's vectors are brought to length 1", hint="A cosine divides by both lengths.")(
    _loss(each=lambda s, t: 1 - (F.normalize(s, dim=-1) * t).sum(-1))
)
exercise.mistake("only the teacher's vectors are brought to length 1", hint="A cosine divides by both lengths.")(
    _loss(each=lambda s, t: 1 - (s * F.normalize(t, dim=-1)).sum(-1))
)
exercise.mistake("the size of the cosine counts, without its sign", hint="Opposite directions are the worst: 2.")(
    _loss(each=lambda s, t: 1 - _cosine(s, t).abs())
)
exercise.mistake("the squared cosine is taken", hint="1 - cosine, without a square.")(
    _loss(each=lambda s, t: 1 - _cosine(s, t).square())
)
exercise.mistake("half of 1 - cosine is taken", hint="1 - cosine, from 0 to 2.")(
    _loss(each=lambda s, t: (1 - _cosine(s, t)) / 2)
)
exercise.mistake("the angle is taken, not its cosine", hint="1 - cosine; no arccos.")(
    _loss(each=lambda s, t: _cosine(s, t).clamp(-0.999, 0.999).arccos())
)
exercise.mistake("the loss of each token is squared", hint="1 - cosine, without a square.")(
    _loss(each=lambda s, t: (1 - _cosine(s, t)).square())
)
exercise.mistake("padding is averaged, too", hint="The mask says which tokens count.")(_loss(mean=over_all))
exercise.mistake("padding adds nothing but is counted", hint="Divide by the number of tokens that are kept.")(
    _loss(mean=counted_all)
)
exercise.mistake("the tokens are summed, not averaged", hint="The mean over the tokens that are kept.")(
    _loss(mean=summed)
)
exercise.mistake("each text's mean is taken first", hint="One mean over all kept tokens of the batch.")(
    _loss(mean=mean_of_rows)
)
exercise.mistake("the mask is turned round", hint="True means that the token counts.")(
    _loss(mean=lambda each, kept: each[~kept].mean() if not bool(kept.all()) else each.mean())
)
exercise.mistake("the projection isn't used where the widths agree anyway", hint="Where one is given, it is applied.")(
    _loss(project=lambda x, w: x if w.shape[0] == w.shape[1] else F.linear(x, w))
)
exercise.mistake(
    "the projection is applied transposed where that fits", hint="It is a linear layer's weight: x @ projection.T."
)(_loss(project=lambda x, w: x @ w if w.shape[0] == w.shape[1] else F.linear(x, w)))


@exercise.mistake("the teacher is projected, not the student", hint="projection is [D, d]: it turns d numbers into D.")
def teacher_projected(student, teacher, mask, projection=None):
    return right(student, teacher if projection is None else teacher @ projection, mask)


exercise.mistake("the projection isn't trained", hint="It is learnt with the student: no detach().")(
    _loss(project=lambda x, w: F.linear(x, w.detach()))
)
exercise.mistake("the cosine is taken along the tokens, not along the width", hint="dim=-1 is the width.")(
    _loss(
        each=lambda s, t: 1 - F.cosine_similarity(s, t, dim=-2).mean(-1),
        mean=lambda each, kept: each.mean(),
    )
)


@exercise.mistake("the kept vectors are averaged before they are compared", hint="Compare token by token.")
def averaged_first(student, teacher, mask, projection=None):
    s = student if projection is None else F.linear(student, projection)
    return 1 - _cosine(s[mask].mean(0), teacher[mask].detach().mean(0))


@exercise.mistake("all kept tokens are compared as one long vector", hint="One cosine for each token, then the mean.")
def one_long_vector(student, teacher, mask, projection=None):
    s = student if projection is None else F.linear(student, projection)
    return 1 - _cosine(s[mask].flatten(), teacher[mask].detach().flatten())


@exercise.mistake(
    "a vector of zeros at padding makes it NaN",
    hint="0 / 0 is NaN, and NaN times 0 is NaN. Choose the tokens before you divide by their lengths.",
)
def nan_at_padding(student, teacher, mask, projection=None):
    s = student if projection is None else F.linear(student, projection)
    t = teacher.detach()
    cosines = (s / s.norm(dim=-1, keepdim=True) * (t / t.norm(dim=-1, keepdim=True))).sum(-1)
    return ((1 - cosines) * mask).sum() / mask.sum()


exercise.mistake(TEACHER_LEARNS, hint=DETACH)(_loss(still=False))
exercise.mistake("the result is always float32", hint="The dtype of the student's states.")(
    lambda student, teacher, mask, projection=None: right(
        student.float(), teacher.float(), mask, None if projection is None else projection.float()
    )
)

exercise.alternative(right)


@exercise.alternative
def by_hand(student, teacher, mask, projection=None):
    s, t = student[mask], teacher[mask].detach()
    s = s if projection is None else s @ projection.T
    lengths = s.square().sum(-1).sqrt() * t.square().sum(-1).sqrt()
    return 1 - (torch.einsum("td,td->t", s, t) / lengths).mean()


@exercise.alternative
def by_distance(student, teacher, mask, projection=None):
    """Half the squared distance of two vectors of length 1 is 1 - cosine; tokens at padding weigh nothing."""
    s = student if projection is None else torch.einsum("...d,wd->...w", student, projection)
    apart = F.normalize(s, dim=-1) - F.normalize(teacher.detach(), dim=-1)
    weights = mask.to(s.dtype) / mask.sum()
    return (apart.square().sum(-1) / 2 * weights).sum()
