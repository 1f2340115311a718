"""`on_policy_loss(student, teacher, tokens, mask)`

A loss whose gradient pulls a student towards what its teacher thinks of the student's own words.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.distillation.shared import (
    OWN_DTYPE,
    by_rows,
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
    "on_policy_loss",
    points=3,
    dtypes=(torch.float64,),
    hints=[
        "Reward each token by how much more the teacher likes it than the student does. Who is trained by the reward?",
        "Two numbers a token: the log-probability that each model gives it (log_softmax, then gather). Their "
        "difference is the advantage, a constant to autograd: detach() it.",
        "log_s, log_t = (x.log_softmax(-1).gather(-1, tokens[..., None])[..., 0] for x in (student, teacher)); "
        "return -((log_t - log_s).detach() * log_s)[mask].mean()",
    ],
)


@exercise.cases
def spoken(g):
    def some(*shape, classes=6, scale=2.0):
        tokens = torch.randint(classes, shape, generator=g)
        return (
            randn(g, *shape, classes, scale=scale),
            randn(g, *shape, classes, scale=scale),
            tokens,
            some_kept(g, *shape),
        )

    yield case(*some(3, 5), label="a batch with padding")
    yield case(*some(2, 4, classes=9), label="nine classes")
    yield case(*some(7, classes=4), label="one text")
    yield case(*some(2, 2, 4, classes=5), label="two batch dimensions")
    yield case(*some(3, 4, scale=150.0), label="logits in the hundreds")
    student, teacher, tokens, mask = some(2, 3)
    far = torch.tensor([400.0, -200.0])[:, None, None]
    yield case(student + far, teacher - far, tokens, mask, label="each text's logits on a level of its own")
    one_token = torch.tensor([[2]]), torch.tensor([[True]])
    yield case(randn(g, 1, 1, 3), randn(g, 1, 1, 3), *one_token, label="one token")
    yield case(student, student.clone(), tokens, mask=mask, label="the student is the teacher")
    yield case(*some(4, 60, classes=50), label="many tokens and classes")


@exercise.oracle
def by_cross_entropy(student, teacher, tokens, mask):
    """The policy gradient with the difference of log-probabilities as advantage, from F.cross_entropy in float64."""
    dtype, flat = student.dtype, tokens[mask]
    nll = F.cross_entropy(student.double()[mask], flat, reduction="none")
    with torch.no_grad():
        advantage = nll - F.cross_entropy(teacher.double()[mask], flat, reduction="none")
    return (advantage * nll).mean().to(dtype)


exercise.law(teacher_is_still(1))


@exercise.law("Where student and teacher agree, nothing is to be gained")
def nothing_to_gain(out, one, call):
    student, _, tokens = one.args[:3]
    mask = one.kwargs.get("mask", one.args[-1])
    rounding = 1e-3 + 1e-5 * float(student.abs().max())  # adding 1 rounds logits in the hundreds
    return None if one.made else same(call(student, student + 1, tokens, mask), torch.tensor(0.0), atol=rounding)


@exercise.law("What stands at padding doesn't matter")
def padding_is_silent(out, one, call):
    student, teacher, tokens = one.args[:3]
    mask = one.kwargs.get("mask", one.args[-1])
    if one.made or bool(mask.all()):
        return None
    keep = mask[..., None]
    changed = torch.where(keep, student, 1 - 2 * student), torch.where(keep, teacher, teacher.flip(-1))
    return same(call(*changed, torch.where(mask, tokens, 0), mask), out, 1e-3, 1e-4)


exercise.law(OWN_DTYPE)


def _said(log_probs, tokens):
    return log_probs.gather(-1, tokens[..., None])[..., 0]


def _loss(
    each=lambda s, t: -((t - s).detach() * s),
    mean=kept_mean,
    logs=lambda x: x.log_softmax(-1),
    pick=_said,
):
    """A loss from its parts; `each` gets the log-probabilities of the tokens under student and teacher."""

    def on_policy_loss(student, teacher, tokens, mask):
        return mean(each(pick(logs(student), tokens), pick(logs(teacher), tokens)), mask)

    return on_policy_loss


right = _loss()

exercise.mistake("the sign of the loss is wrong", hint="What the teacher likes better is to become likelier: minus.")(
    _loss(each=lambda s, t: (t - s).detach() * s)
)
exercise.mistake(
    "the advantage isn't a constant to autograd",
    hint="Detach it: the reward is not to be trained, neither through the teacher nor through the student.",
)(_loss(each=lambda s, t: -((t - s) * s)))
exercise.mistake(
    "only the teacher's half of the advantage is detached",
    hint="The student's log-probability in the advantage is a constant, too.",
)(_loss(each=lambda s, t: -((t.detach() - s) * s)))
exercise.mistake(
    "the whole product is multiplied by the teacher's log-probability, not by the advantage",
    hint="The advantage is log teacher - log student: without the second, the student's entropy doesn't count.",
)(_loss(each=lambda s, t: -(t.detach() * s)))
exercise.mistake(
    "its value is the difference of the log-probabilities, without the last factor",
    hint="Its gradient forgets which tokens were drawn: on average it is 0. Advantage times log-probability.",
)(_loss(each=lambda s, t: s - t.detach()))
exercise.mistake("it is the plain likelihood of the student's own words", hint="Weighed with the advantage.")(
    _loss(each=lambda s, t: -s)
)
exercise.mistake("the advantage is a ratio of probabilities", hint="A difference of log-probabilities: its logarithm.")(
    _loss(each=lambda s, t: -((t - s).detach().exp() * s))
)
exercise.mistake("the advantage is multiplied with the probability", hint="With the log-probability of the student.")(
    _loss(each=lambda s, t: -((t - s).detach() * s.exp()))
)


@exercise.mistake("the mean advantage is taken off first", hint="The advantage as it is: no baseline, no scaling.")
def with_baseline(student, teacher, tokens, mask):
    log_s, log_t = (_said(x.log_softmax(-1), tokens) for x in (student, teacher))
    advantage = (log_t - log_s).detach()
    return -((advantage - advantage[mask].mean()) * log_s)[mask].mean()


exercise.mistake("negative advantages are cut off", hint="A token that the teacher likes less has to become rarer.")(
    _loss(each=lambda s, t: -((t - s).detach().clamp(min=0) * s))
)
exercise.mistake("the size of the advantage counts, without its sign", hint="Its sign says up or down.")(
    _loss(each=lambda s, t: -((t - s).detach().abs() * s))
)
exercise.mistake("the advantage is squared", hint="The difference itself.")(
    _loss(each=lambda s, t: -((t - s).detach().square() * s))
)
exercise.mistake("padding is averaged, too", hint="The mask says which tokens count.")(_loss(mean=over_all))
exercise.mistake("padding adds nothing but is counted", hint="Divide by the number of tokens that are kept.")(
    _loss(mean=counted_all)
)
exercise.mistake("it is divided by the number of texts, not of tokens", hint="The mean over the kept tokens.")(
    _loss(mean=by_rows)
)
exercise.mistake("the tokens are summed, not averaged", hint="The mean over the kept tokens.")(_loss(mean=summed))
exercise.mistake("each text's mean is taken first", hint="One mean over all kept tokens of the batch.")(
    _loss(mean=mean_of_rows)
)
exercise.mistake("logits stand where log-probabilities belong", hint="log_softmax first.")(_loss(logs=lambda x: x))
exercise.mistake("probabilities stand where log-probabilities belong", hint="log_softmax, not softmax.")(
    _loss(logs=lambda x: x.softmax(-1))
)
exercise.mistake("the logarithm is taken of a softmax that may have become 0", hint="log(0) is infinite: log_softmax.")(
    _loss(logs=lambda x: x.softmax(-1).log())
)


@exercise.mistake("the tokens are shifted by one", hint="tokens[i] was drawn from student[i]: nothing to shift.")
def shifted(student, teacher, tokens, mask):
    return right(student, teacher, tokens.roll(-1, -1), mask)


exercise.mistake("the student's likeliest token is judged, not the one it said", hint="tokens are what was drawn.")(
    lambda student, teacher, tokens, mask: right(student, teacher, student.argmax(-1), mask)
)
exercise.mistake("student and teacher are swapped", hint="The student is trained, by the teacher's opinion.")(
    lambda student, teacher, tokens, mask: right(teacher, student, tokens, mask)
)
exercise.mistake("the result is always float32", hint="The dtype of the student's logits.")(
    lambda student, teacher, tokens, mask: right(student.float(), teacher.float(), tokens, mask)
)

exercise.alternative(right)


@exercise.alternative
def by_indexing(student, teacher, tokens, mask):
    s, t, said = student[mask], teacher[mask], tokens[mask]
    rows = torch.arange(len(said))
    log_s = s[rows, said] - s.logsumexp(-1)
    with torch.no_grad():
        advantage = t[rows, said] - t.logsumexp(-1) - log_s
    return (-advantage * log_s).sum() / mask.sum()


@exercise.alternative
def by_one_hot(student, teacher, tokens, mask):
    chosen = F.one_hot(tokens, student.shape[-1]).to(student.dtype)
    log_s = (student.log_softmax(-1) * chosen).sum(-1)
    log_t = (teacher.detach().log_softmax(-1) * chosen).sum(-1)
    weights = mask.to(student.dtype) / mask.sum()
    return -(weights * (log_t - log_s.detach()) * log_s).sum()
