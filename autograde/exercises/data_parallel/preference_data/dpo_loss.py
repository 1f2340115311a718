"""`dpo_loss(policy, reference, mask, beta=0.1, label_smoothing=0.0)`

Preferences train a language model directly: its own log-probabilities, against a reference's, are the reward.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, Law, case, keeps_dtype, same

exercise = Draft(
    "dpo_loss",
    points=4,
    dtypes=(torch.float64,),
    hints=[
        "An answer's log-probability is a sum over its tokens. What is the reward of an answer, in DPO?",
        "rewards = beta * (the policy's sums - the reference's), [2, pairs]. The loss of a pair is a binary "
        "cross-entropy with rewards[0] - rewards[1] as the logit, and 1 - label_smoothing as the target.",
        "torch.where(mask, policy - reference.detach(), 0.0).sum(-1) * beta are the rewards; margin = rewards[0] - "
        "rewards[1]; the mean of -(1 - e) * F.logsigmoid(margin) - e * F.logsigmoid(-margin).",
    ],
)


def _said(g, pairs, n, scale=1.0, drift=0.7):
    """Token log-probabilities of a policy and of a reference near it, and which tokens are of the answers."""
    reference = -scale * torch.rand(2, pairs, n, generator=g) * 3 - 0.05
    policy = -(reference.abs() + drift * torch.randn(2, pairs, n, generator=g)).abs()
    lengths = torch.randint(1, n + 1, (2, pairs), generator=g)
    lengths[0, 0], lengths[1, 0] = n, max(1, n // 2)  # the first pair's answers differ in length
    return policy, reference, torch.arange(n) < lengths[..., None]


@exercise.cases
def votes(g):
    yield case(*_said(g, 4, 6), label="four pairs")
    yield case(*_said(g, 3, 5), 0.5, 0.2, label="some labels are wrong")
    yield case(*_said(g, 1, 4), beta=2.0, label="one pair, a large beta")
    policy, reference, mask = _said(g, 3, 7)
    prompt = torch.arange(7) < 2  # what stands before the answer
    yield case(policy, reference, mask & ~prompt | (torch.arange(7) == 2), label="the prompt's tokens aren't masked in")
    policy, reference, mask = _said(g, 3, 6)
    reference = torch.where(mask, reference, -torch.inf)
    yield case(torch.where(mask, policy, -torch.inf), reference, mask, 0.3, label="-inf at padding")
    policy, reference, mask = _said(g, 3, 5)
    mask[1, 1] = False
    yield case(policy, reference, mask, 0.2, label_smoothing=0.1, label="an empty answer")
    policy, reference, mask = _said(g, 4, 40, scale=3.0)
    policy[0, 0] -= 60.0
    policy[1, 1] -= 60.0
    yield case(policy, reference, mask, 1.0, label="margins in the hundreds and beyond")
    yield case(*_said(g, 60, 12), 0.1, 0.5, label="labels that say nothing")
    policy, _, mask = _said(g, 3, 5)
    yield case(policy, policy.clone(), mask, 0.4, 0.05, label="the policy is still the reference")
    yield case(*_said(g, 2, 1), 0.25, label="one token each")
    policy, reference, mask = _said(g, 5, 6)
    mask[:, 0, ::2] = False
    yield case(policy, reference, mask, 0.7, 0.3, label="gaps in the mask")


def _knobs(one):
    defaults = {"beta": 0.1, "label_smoothing": 0.0}
    return defaults | dict(zip(defaults, one.args[3:], strict=False)) | one.kwargs


@exercise.oracle
def torch_cross_entropy(policy, reference, mask, beta=0.1, label_smoothing=0.0):
    dtype = policy.dtype
    ratio = torch.where(mask, policy.double(), 0.0) - torch.where(mask, reference.detach().double(), 0.0)
    rewards = beta * ratio.sum(-1)
    margin = rewards[0] - rewards[1]
    loss = F.binary_cross_entropy_with_logits(margin, torch.full_like(margin, 1 - label_smoothing))
    return loss.to(dtype), rewards.detach().to(dtype)


def _still(out, one, call):
    if one.made:
        return None
    found = call(*one.args, backward=((0,), (1,)), **one.kwargs)
    return not isinstance(found, list) or found[0] is None or not bool(found[0].any()) or "a gradient reaches it"


exercise.law(Law("No gradient reaches the reference", _still))
exercise.law("Loss and rewards have the dtype of the policy")(keeps_dtype)


def _finite(one):
    return not one.made and bool(torch.isfinite(one.args[0]).all())


@exercise.law("A policy that is the reference loses ln 2, and all its rewards are 0")
def starts_at_ln_2(out, one, call):
    if not _finite(one):
        return None
    policy, _, mask = one.args[:3]
    loss, rewards = call(policy, policy.clone(), mask, **_knobs(one))
    return same(loss, torch.tensor(math.log(2), dtype=policy.dtype), 1e-4) and not rewards.any()


@exercise.law("What stands where the mask is False doesn't matter")
def padding_is_silent(out, one, call):
    policy, reference, mask = one.args[:3]
    if one.made or mask.all():
        return None
    changed = torch.where(mask, policy, 1 - 2 * policy.nan_to_num(neginf=-3)), torch.where(mask, reference, -9.0)
    return same(call(*changed, mask, **_knobs(one)), out, 1e-3, 1e-4)


@exercise.law("If chosen and rejected are exchanged, so are the rewards")
def exchanged(out, one, call):
    if one.made:
        return None
    _, rewards = call(*(x.flip(0) for x in one.args[:3]), **_knobs(one))
    return same(rewards.flip(0), out[1], 1e-3, 1e-4)


def _sums(x, mask):
    return torch.where(mask, x, 0.0).sum(-1)


def _smooth(margin, e):
    return -(1 - e) * F.logsigmoid(margin) - e * F.logsigmoid(-margin)


def _dpo(
    answer=_sums,
    ratio=lambda p, r: p - r,
    rewards=lambda ratio, beta: beta * ratio,
    margin=lambda rewards: rewards[0] - rewards[1],
    each=_smooth,
    mean=torch.mean,
    still=True,
    told=lambda rewards, ratio: rewards,
    masks=lambda mask: mask,
):
    """A loss from its parts."""

    def dpo_loss(policy, reference, mask, beta=0.1, label_smoothing=0.0):
        mask = masks(mask)
        if still:
            reference = reference.detach()
        between = ratio(answer(policy, mask), answer(reference, mask))
        worth = rewards(between, beta)
        return mean(each(margin(worth), label_smoothing)), told(worth, between).detach()

    return dpo_loss


def _means(x, mask):
    return _sums(x, mask) / mask.sum(-1).clamp(min=1)


exercise.mistake(
    "log-probabilities are averaged over the tokens, not summed",
    hint="The probability of an answer is a product over its tokens. (A mean makes another loss, as in SimPO.)",
)(_dpo(answer=_means))
exercise.mistake("all positions are summed, masked or not", hint="Sum only where the mask is True.")(
    _dpo(answer=lambda x, mask: x.sum(-1))
)
exercise.mistake(
    "padding is multiplied by 0", hint="-inf * 0 is NaN. torch.where(mask, x, 0.0) doesn't look at what it leaves out."
)(_dpo(answer=lambda x, mask: (x * mask).sum(-1)))
exercise.mistake(
    "the mask of the chosen answers serves for both",
    hint="mask[1] belongs to the rejected answers, which end elsewhere.",
)(_dpo(masks=lambda mask: mask[:1].expand_as(mask)))
exercise.mistake(
    "the reference is left out",
    hint="The reward is how much likelier the policy makes an answer than the reference does.",
)(_dpo(ratio=lambda p, r: p + 0 * r))
exercise.mistake("the reference learns, too", hint="reference.detach(), or torch.no_grad() around it.")(
    _dpo(still=False)
)
exercise.mistake("chosen and rejected are exchanged", hint="[0] is the chosen answer: its reward should rise.")(
    _dpo(margin=lambda rewards: rewards[1] - rewards[0])
)
exercise.mistake("beta multiplies the loss, not the margin", hint="beta stands inside the sigmoid.")(
    lambda policy, reference, mask, beta=0.1, label_smoothing=0.0: (
        beta * right(policy, reference, mask, 1.0, label_smoothing)[0],
        right(policy, reference, mask, beta, label_smoothing)[1],
    )
)
exercise.mistake("beta is ignored", hint="Use beta, whatever it is.")(_dpo(rewards=lambda ratio, beta: 0.1 * ratio))
exercise.mistake("the margin is divided by beta", hint="beta times the log-ratio.")(
    _dpo(rewards=lambda ratio, beta: ratio / beta)
)
exercise.mistake("the rewards come without beta", hint="An answer's reward is beta times its log-ratio.")(
    _dpo(told=lambda rewards, ratio: ratio)
)
exercise.mistake("losses are summed over the pairs", hint="A mean over the pairs.")(_dpo(mean=torch.sum))
exercise.mistake("label_smoothing is ignored", hint="With a probability of label_smoothing the vote is wrong.")(
    _dpo(each=lambda margin, e: -F.logsigmoid(margin))
)
exercise.mistake(
    "smoothing takes the wrong label's loss away instead of adding it",
    hint="A cross-entropy with the target 1 - label_smoothing: both terms have a minus.",
)(_dpo(each=lambda margin, e: -(1 - e) * F.logsigmoid(margin) + e * F.logsigmoid(-margin)))
exercise.mistake(
    "half of label_smoothing is given to the wrong answer",
    hint="The target is 1 - label_smoothing for the chosen answer, and label_smoothing for the rejected one.",
)(_dpo(each=lambda margin, e: _smooth(margin, e / 2)))
exercise.mistake("the logarithm of a sigmoid overflows", hint="log(sigmoid(-200)) is -inf in float32: F.logsigmoid.")(
    _dpo(each=lambda m, e: -(1 - e) * torch.sigmoid(m).log() - e * torch.sigmoid(-m).log())
)
exercise.mistake(
    "a small number is added inside the logarithm", hint="It bends the loss of large margins: F.logsigmoid needs none."
)(_dpo(each=lambda m, e: -(1 - e) * (torch.sigmoid(m) + 1e-8).log() - e * (torch.sigmoid(-m) + 1e-8).log()))
exercise.mistake("the margin is squared off (IPO)", hint="DPO's loss is logistic: -log sigmoid(margin).")(
    lambda policy, reference, mask, beta=0.1, label_smoothing=0.0: _dpo(
        each=lambda m, e: (m / beta - 1 / (2 * beta)) ** 2
    )(policy, reference, mask, beta, label_smoothing)
)
exercise.mistake("the sigmoid is not put into a logarithm", hint="-log sigmoid(margin).")(
    _dpo(each=lambda m, e: -(1 - e) * torch.sigmoid(m) - e * torch.sigmoid(-m))
)
exercise.mistake("a hinge takes the place of the logistic loss", hint="-log sigmoid(margin), which never is 0.")(
    _dpo(each=lambda m, e: (1 - e) * (1 - m).clamp(min=0) + e * (1 + m).clamp(min=0))
)


@exercise.mistake(
    "every token gets a loss of its own", hint="Sum over the tokens first: a vote is about whole answers."
)
def token_by_token(policy, reference, mask, beta=0.1, label_smoothing=0.0):
    ratio = beta * torch.where(mask, policy - reference.detach(), 0.0)
    return _smooth(ratio[0] - ratio[1], label_smoothing).mean(), ratio.sum(-1).detach()


right = _dpo()
exercise.alternative(right)


@exercise.alternative
def pair_by_pair(policy, reference, mask, beta=0.1, label_smoothing=0.0):
    losses, rewards = [], [[], []]
    for i in range(policy.shape[1]):
        for side in (0, 1):
            kept = mask[side, i]
            rewards[side].append(beta * (policy[side, i][kept].sum() - reference[side, i][kept].detach().sum()))
        gap = rewards[1][-1] - rewards[0][-1]
        wrong = F.softplus(-gap)
        losses.append((1 - label_smoothing) * F.softplus(gap) + label_smoothing * wrong)
    return torch.stack(losses).sum() / len(losses), torch.stack([torch.stack(row) for row in rewards]).detach()
