"""`cross_entropy(logits, targets, ignore_index=-100)`

The mean of -log softmax(logits)[target] over the targets that count, in nats.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import randn

exercise = Draft(
    "cross_entropy",
    points=3,
    forbid=["torch.nn.functional.cross_entropy", "torch.nn.functional.nll_loss"],
    rtol=1e-3,
    atol=2e-3,
    dtypes=[torch.float64],
    no_gradient="its gradient is part of what is compared",
    hints=[
        "-log softmax(logits)[target] is logsumexp(logits) - logits[target]. Which tokens does the mean run over?",
        "kept = targets != ignore_index; logits[kept] is [tokens, classes], whatever the dimensions were before. "
        "gather picks one number from each row.",
        "logits, targets = logits[kept], targets[kept]; chosen = logits.gather(-1, targets[:, None])[:, 0]; "
        "return (logits.logsumexp(-1) - chosen).mean()",
    ],
)


@exercise.cases
def loss_cases(g):
    def some(*shape, classes=7, scale=2.0):
        return randn(g, *shape, classes) * scale, torch.randint(classes, shape, generator=g)

    def padded(logits, targets, index=-100, share=0.4):
        hidden = torch.rand(targets.shape, generator=g) < share
        hidden.view(-1)[0], hidden.view(-1)[-1] = False, True
        return logits, targets.masked_fill(hidden, index)

    yield case(*some(2, 5), label="a batch")
    yield case(*some(6, classes=3), label="one row")
    yield case(*some(classes=4), label="one token")
    yield case(*some(1, 1, classes=2), label="two classes")
    yield case(*padded(*some(3, 6)), label="with padding")
    logits, targets = some(4, 6)
    ends = torch.tensor([6, 1, 3, 0])
    yield case(logits, targets.masked_fill(torch.arange(6) >= ends[:, None], -100), label="rows of different lengths")
    yield case(*padded(*some(2, 2, 4, classes=5)), label="two batch dimensions")
    yield case(*padded(*some(4, 4, classes=4), index=2), ignore_index=2, label="class 2 is the padding")
    yield case(*padded(*some(3, 5), index=0), ignore_index=0, label="class 0 is the padding")
    yield case(*padded(*some(3, 4), index=-1), ignore_index=-1, label="padding is -1")
    yield case(*some(3, 4, scale=1e4), label="logits of ten thousand")
    far = torch.tensor([1e4, -1e4, 300.0])[:, None]
    logits, targets = some(2, 3, classes=5)
    yield case(logits + far, targets, label="each token's logits on a level of its own")
    yield case(*padded(*some(20, 30, classes=150)), label="many tokens and classes, with padding")
    yield case(torch.zeros(3, 4, 9), targets.new_tensor([[0, 8, 4, 1]] * 3), label="all classes alike")
    yield case(-randn(g, 4, 6).abs() * 90, torch.randint(6, (4,), generator=g), label="all logits below zero")


@exercise.oracle
def torch_loss_and_gradient(logits, targets, ignore_index=-100):
    dtype, logits = logits.dtype, logits.detach().double().requires_grad_()
    rows = logits.reshape(-1, logits.shape[-1])
    loss = torch.nn.functional.cross_entropy(rows, targets.reshape(-1), ignore_index=ignore_index)
    loss.backward()
    return [loss.to(dtype), logits.grad.to(dtype)]


@exercise.probe
def loss_and_gradient(cross_entropy, logits, targets, **options):
    """The loss, and its gradient for the logits: zeros where the loss doesn't know where it came from."""
    import torch

    logits = logits.detach().requires_grad_()
    loss = cross_entropy(logits, targets, **options)
    if isinstance(loss, torch.Tensor) and loss.requires_grad:
        loss.backward()
    return [loss, torch.zeros_like(logits) if logits.grad is None else logits.grad]


@exercise.law("A constant on all logits of a token changes nothing")
def alike_when_shifted(out, one, call):
    """A constant on all logits of a token changes nothing."""
    logits, targets = one.args
    shift = torch.arange(targets.numel(), dtype=logits.dtype).view(targets.shape)[..., None] * 3 - 5
    return same(call(logits + shift, targets, **one.kwargs)[0], out[0], rtol=1e-3, atol=1e-2)


@exercise.law("Logits that are all alike give log(classes)")
def knowing_nothing(out, one, call):
    """Equal logits give log(classes)."""
    logits, targets = one.args
    return same(call(torch.full_like(logits, 3.0), targets, **one.kwargs)[0], math.log(logits.shape[-1]), atol=1e-4)


@exercise.law("What is predicted at padding doesn't matter")
def padding_is_silent(out, one, call):
    """The logits at padding have no gradient, and don't count."""
    logits, targets = one.args
    hidden = targets == one.kwargs.get("ignore_index", -100)
    if not hidden.any():
        return None
    if out[1][hidden].abs().sum() > 0:
        return "the logits at padding have a gradient"
    return same(call(torch.where(hidden[..., None], 3 * logits + 1, logits), targets, **one.kwargs)[0], out[0])


@exercise.law("A token's gradient adds up to 0 over the classes")
def gradient_sums_to_zero(out, one, call):
    """Softmax minus one-hot: over the classes it adds up to 0, and somewhere it isn't 0."""
    return same(out[1].sum(-1), torch.zeros(out[1].shape[:-1]), atol=1e-4) and bool(out[1].isfinite().all())


@exercise.law("The loss has the dtype of the logits")
def loss_keeps_dtype(out, one, call):
    return keeps_dtype(out[0], one, call)


def _nats(logits, targets):
    """The loss of every token; of padding, something finite."""
    chosen = logits.gather(-1, targets.clamp(0, logits.shape[-1] - 1)[..., None])[..., 0]
    return logits.logsumexp(-1) - chosen


def _mean(losses, kept):
    return losses[kept].mean()


def _loss(each=_nats, mean=None, prepare=lambda logits: logits):
    """A loss in parts: what is done to the logits, the loss of each token, the mean over those that are kept."""

    def cross_entropy(logits, targets, ignore_index=-100):
        return (mean or _mean)(each(prepare(logits), targets), targets != ignore_index)

    return cross_entropy


exercise.mistake(
    "padding is averaged in, with class 0 as its target",
    hint="Drop the targets that equal ignore_index before you take the mean.",
)(_loss(mean=lambda losses, kept: losses.mean()))

exercise.mistake(
    "the sum over kept tokens is divided by all tokens, padding included",
    hint="Divide by the number of targets that are kept.",
)(_loss(mean=lambda losses, kept: (losses * kept).sum() / losses.numel()))

exercise.mistake("the losses are summed up", hint="The mean over the targets that are kept.")(
    _loss(mean=lambda losses, kept: losses[kept].sum())
)


def _mean_of_rows(losses, kept):
    """Each row's own mean first."""
    if losses.dim() == 0:
        return losses
    rows = [_mean(row, keep) for row, keep in zip(losses, kept, strict=True) if bool(keep.any())]
    return torch.stack(rows).mean()


exercise.mistake(
    "each row's mean is taken first, and then the mean of the rows",
    hint="A short row's tokens would count more. One mean over all kept tokens.",
)(_loss(mean=_mean_of_rows))


def _naive(logits, targets):
    chosen = logits.gather(-1, targets.clamp(0, logits.shape[-1] - 1)[..., None])[..., 0]
    return logits.exp().sum(-1).log() - chosen


exercise.mistake(
    "exp is taken of the logits as they are",
    hint="exp(90) is infinite in float32. Subtract each token's largest logit first, or use logsumexp.",
)(_loss(_naive))


def _of_probabilities(floor):
    """log(p + floor), so that a probability of 0 does no harm."""

    def each(logits, targets):
        chosen = logits.softmax(-1).gather(-1, targets.clamp(0, logits.shape[-1] - 1)[..., None])[..., 0]
        return -(chosen + floor).log()

    return each


exercise.mistake(
    "a tiny number is added to the probability before the logarithm",
    hint=("That caps the loss at about 20 and kills the gradient. Stay with logarithms: logit - logsumexp."),
)(_loss(_of_probabilities(1e-9)))


exercise.mistake(
    "the logarithm is taken of the softmax, which may have become 0",
    hint="log(0) is infinite, and its gradient NaN. Stay with logarithms: logit - logsumexp.",
)(_loss(_of_probabilities(0.0)))


def _one_maximum(logits, targets):
    return _naive(logits - logits.max(), targets)


exercise.mistake(
    "the largest logit of the whole batch is subtracted from all",
    hint="Each token has its own largest logit; elsewhere everything may underflow to 0.",
)(_loss(_one_maximum))



def _over_tokens(logits, targets, ignore_index=-100):
    """The softmax of the tokens that count, down each class."""
    kept = targets != ignore_index
    rows, wanted = logits[kept], targets[kept]
    return -rows.log_softmax(0).gather(-1, wanted[:, None]).mean()


exercise.mistake(
    "the softmax runs over the tokens", hint="A token's probabilities add up to 1 over the classes, the last dimension."
)(_over_tokens)

exercise.mistake(
    "the logits are sent through a softmax first", hint="The loss has its own softmax. Two of them flatten everything."
)(_loss(prepare=lambda logits: logits.softmax(-1)))


def _brier(logits, targets):
    wanted = F.one_hot(targets.clamp(0, logits.shape[-1] - 1), logits.shape[-1])
    return (logits.softmax(-1) - wanted).square().sum(-1)


exercise.mistake(
    "the squared distance of the probabilities from one-hot is taken",
    hint="That is Brier's score. Wanted is -log of the target's probability.",
)(_loss(_brier))


def _unlikely(logits, targets):
    chosen = logits.softmax(-1).gather(-1, targets.clamp(0, logits.shape[-1] - 1)[..., None])[..., 0]
    return 1 - chosen


exercise.mistake("1 - p is taken instead of -log p", hint=("-log(p): an impossible word costs without limit."))(
    _loss(_unlikely)
)


def _not_normalised(logits, targets):
    return -logits.gather(-1, targets.clamp(0, logits.shape[-1] - 1)[..., None])[..., 0]


exercise.mistake("the target's logit isn't normalized", hint="Subtract the logsumexp of all logits of that token.")(
    _loss(_not_normalised)
)

exercise.mistake("the loss is in bits", hint="Nats: the natural logarithm.")(
    _loss(lambda logits, targets: _nats(logits, targets) / math.log(2))
)

exercise.mistake("the sign is wrong", hint="-log of a probability is positive.")(
    _loss(lambda logits, targets: -_nats(logits, targets))
)

exercise.mistake("the perplexity is returned", hint="The mean itself, not its exponential.")(
    _loss(mean=lambda losses, kept: losses[kept].mean().exp())
)

exercise.mistake("the softmax runs over positions instead of classes", hint="Classes are the last dimension.")(
    _loss(
        prepare=lambda logits: logits.log_softmax(-2) if logits.dim() > 1 else logits.log_softmax(-1),
        each=_not_normalised,
    )
)

exercise.mistake("labels are smoothed", hint="All of the weight is on the target.")(
    _loss(lambda logits, targets: 0.9 * _nats(logits, targets) - 0.1 * logits.log_softmax(-1).mean(-1))
)

exercise.mistake(
    "the loss is a plain number without a graph",
    hint="Keep a tensor: .item() and float() cut the way back to the weights.",
)(_loss(mean=lambda losses, kept: losses[kept].mean().item()))

loss_by_hand = _loss()


@exercise.mistake("the loss is computed in float32, whatever the logits are", hint="Leave the dtype alone.")
def loss_in_float32(logits, targets, ignore_index=-100):
    return loss_by_hand(logits.float(), targets, ignore_index)


exercise.mistake(
    "no gradient goes through the normalizer", hint="The gradient is softmax minus one-hot: don't detach the logsumexp."
)(_loss(lambda logits, targets: logits.logsumexp(-1).detach() + _not_normalised(logits, targets)))


@exercise.mistake("-100 is ignored, whatever ignore_index says", hint="Compare with ignore_index.")
def loss_fixed_index(logits, targets, ignore_index=-100):
    """-100 is ignored, whatever ignore_index says."""
    return loss_by_hand(logits, targets, -100)


@exercise.mistake(
    "every negative target is ignored, and no other",
    hint="ignore_index may be a class, such as 0: targets != ignore_index.",
)
def loss_all_negatives(logits, targets, ignore_index=-100):
    """Every target below zero is ignored, and no other."""
    return _mean(_nats(logits, targets), targets >= 0)


@exercise.mistake(
    "the targets are shifted by one once more",
    hint="get_batch has shifted them. Twice, and the model learns to skip a word.",
)
def loss_shifts_again(logits, targets, ignore_index=-100):
    """Shifts the targets by one, although the batch has done so."""
    if targets.dim() == 0 or targets.shape[-1] < 2:
        return loss_by_hand(logits, targets, ignore_index)
    return loss_by_hand(logits[..., :-1, :], targets[..., 1:], ignore_index)


@exercise.mistake(
    "the ignored class is taken out of the softmax", hint="It is ignored as a target. It still is one of the classes."
)
def loss_without_class(logits, targets, ignore_index=-100):
    """The ignored class is taken out of the softmax as well."""
    if 0 <= ignore_index < logits.shape[-1]:
        logits = logits.index_fill(-1, torch.tensor(ignore_index), -torch.inf)
    return loss_by_hand(logits, targets, ignore_index)


exercise.alternative(loss_by_hand)


@exercise.alternative
def loss_by_mask(logits, targets, ignore_index=-100):
    """Flat, with a mask in place of an index, and the maximum by hand."""
    logits, targets = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
    kept = (targets != ignore_index).to(logits.dtype)
    low = logits - logits.max(-1, keepdim=True).values
    log_probabilities = low - low.exp().sum(-1, keepdim=True).log()
    chosen = log_probabilities[torch.arange(len(targets)), targets.clamp(0, logits.shape[-1] - 1)]
    return -(chosen * kept).sum() / kept.sum()


@exercise.alternative
def loss_by_one_hot(logits, targets, ignore_index=-100):
    kept = targets != ignore_index
    wanted = F.one_hot(targets[kept], logits.shape[-1]).to(logits.dtype)
    return -(logits.log_softmax(-1)[kept] * wanted).sum(-1).mean(0)
