"""`semantic_entropy(entails, logprobs=None)`: How undecided the model is about what it *means*, over all wordings."""

from __future__ import annotations

import math

import torch

from autograde.exercise import Draft, case, same
from autograde.exercises.shared import pick

exercise = Draft(
    "semantic_entropy",
    points=4,
    no_gradient="a measurement on samples: nothing is trained through it",
    dtypes=(torch.float64,),
    hints=[
        "Two wordings of one meaning should count as one. First groups, then the entropy of the groups' shares.",
        "For each answer i ask the first member f of every group, in order: entails[i, f] and entails[f, i].",
        "mass = torch.stack([logprobs[groups == c].logsumexp(0) for c in range(count)]).log_softmax(0); then "
        "-(mass.exp() * mass).sum().",
    ],
)


def _answers(g, sizes, one_way=0, apart=True):
    """Which of the answers entail which: meanings of the given sizes, mixed; `one_way` more implications, not back."""
    meaning = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    meaning = meaning[torch.randperm(len(meaning), generator=g)]
    entails = meaning[:, None] == meaning[None]
    i, j = (meaning[:, None] < meaning[None]).nonzero(as_tuple=True)
    for at in torch.randperm(len(i), generator=g)[:one_way].tolist():
        entails[i[at], j[at]] = True
    return entails


def _logs(g, n, around=-6.0, spread=2.0):
    return around + spread * torch.randn(n, generator=g)


@exercise.cases
def meanings(g):
    yield case(_answers(g, [3, 1, 2]), _logs(g, 6), label="three meanings")
    yield case(_answers(g, [1, 2, 4]), _logs(g, 7), label="three other meanings")
    yield case(_answers(g, [4, 2, 2]), label="without log-probabilities")
    yield case(_answers(g, [2, 3, 2], one_way=7), _logs(g, 7), label="some imply others, but not back")
    whole = torch.ones(4, 4, dtype=torch.bool)
    yield case(whole.triu(), _logs(g, 4), label="each implies all that come later, but not back")
    yield case(whole.tril(), _logs(g, 4), label="each implies all that came before, but not back")
    yield case(_answers(g, [5]), _logs(g, 5), label="one meaning")
    yield case(_answers(g, [1] * 5), label="five meanings, no log-probabilities")
    yield case(_answers(g, [1]), logprobs=_logs(g, 1), label="one answer")
    yield case(
        _answers(g, [3, 3, 1]), _logs(g, 7, around=-900, spread=3), label="long answers: probabilities underflow"
    )
    chain = torch.eye(5, dtype=torch.bool)  # 0 and 1 agree, 1 and 2, 2 and 3 …: nearness isn't sameness
    near = torch.arange(4)
    chain[near, near + 1] = chain[near + 1, near] = True
    yield case(chain, _logs(g, 5), label="neighbors agree, and no others")
    star = torch.eye(4, dtype=torch.bool)
    star[3, :3] = star[:3, 3] = True
    yield case(star, _logs(g, 4), label="the last agrees with all, the others don't")
    hub = star.flip(0, 1)
    yield case(hub, _logs(g, 4), label="all agree with the first, not with each other")
    aside = _answers(g, [2, 1, 2]) & ~torch.eye(5, dtype=torch.bool)
    yield case(aside, _logs(g, 5), label="no answer is said to imply itself")
    yield case(_answers(g, [30, 1, 12, 7], one_way=pick(g, 20, 40)), _logs(g, 50), label="fifty answers")


@exercise.oracle
def scipy_entropy(entails, logprobs=None):
    """Plain loops for the groups; scipy's logsumexp and entropy for the numbers."""
    import numpy as np
    from scipy.special import logsumexp
    from scipy.stats import entropy

    groups, firsts = [], []
    for i in range(len(entails)):
        same_as = [c for c, f in enumerate(firsts) if bool(entails[i][f]) and bool(entails[f][i])]
        if not same_as:
            firsts.append(i)
        groups.append(same_as[0] if same_as else len(firsts) - 1)
    logs = np.zeros(len(groups)) if logprobs is None else logprobs.double().numpy()
    mass = np.array([logsumexp(logs[np.array(groups) == c]) for c in range(len(firsts))])
    value = torch.tensor(float(entropy(np.exp(mass - logsumexp(mass)))))
    return value.to(torch.float32 if logprobs is None else logprobs.dtype), torch.tensor(groups)


def _logs_of(one):
    return one.args[1] if len(one.args) > 1 else one.kwargs.get("logprobs")


@exercise.law("The entropy is a tensor without dimensions, of logprobs' dtype (or float32); groups are int64")
def dtypes(out, one, call):
    wanted = torch.float32 if _logs_of(one) is None else _logs_of(one).dtype
    entropy, groups = out
    return (
        isinstance(entropy, torch.Tensor)
        and entropy.shape == ()
        and entropy.dtype == wanted
        and groups.dtype == torch.int64
    )


@exercise.law("An answer that is as good as impossible changes nothing")
def impossible_answer(out, one, call):
    logs, n = _logs_of(one), len(one.args[0])
    if logs is None or n > 10:
        return None
    larger = torch.eye(n + 1, dtype=torch.bool)
    larger[:n, :n] = one.args[0]
    return same(call(larger, torch.cat([logs, logs[:1] * 0 + logs.min() - 200]))[0], out[0], atol=1e-4)


@exercise.law("Answers that are each likelier by the same factor change nothing")
def same_factor(out, one, call):
    logs = _logs_of(one)
    return None if logs is None else same(call(one.args[0], logs - 1.5)[0], out[0], atol=1e-3)


def grouped(entails, member="first", way="both"):
    """A group number for each answer; which member is asked, and which way it has to follow."""
    groups: list[int] = []
    for i in range(len(entails)):
        found = None
        for c in range(max(groups, default=-1) + 1):
            members = [j for j, group in enumerate(groups) if group == c]
            asked = {"first": members[:1], "last": members[-1:], "any": members, "all": members}[member]
            follows = [
                {
                    "both": entails[i, j] and entails[j, i],
                    "either": entails[i, j] or entails[j, i],
                    "forth": entails[i, j],
                    "back": entails[j, i],
                }[way]
                for j in asked
            ]
            if (all if member == "all" else any)(map(bool, follows)):
                found = c
                break
        groups.append(max(groups, default=-1) + 1 if found is None else found)
    return torch.tensor(groups)


def _entropy(member="first", way="both", masses=None, told=None, ignore=False, scale=1.0):
    """`semantic_entropy` in parts."""

    def semantic_entropy(entails, logprobs=None):
        groups = grouped(entails, member, way)
        logs = torch.zeros(len(groups)) if logprobs is None or ignore else logprobs
        dtype = torch.float32 if logprobs is None else logprobs.dtype
        wide = logs.double()
        parts = [wide[groups == c] for c in range(int(groups.max()) + 1)]
        mass = (masses or (lambda parts: torch.stack([part.logsumexp(0) for part in parts]).log_softmax(0)))(parts)
        value = -(mass.exp() * mass).sum() / scale if told is None else told(mass, wide)
        return value.to(dtype), groups

    return semantic_entropy


exercise.mistake("one direction is enough: an answer that implies another joins it", hint="Both imply each other.")(
    _entropy(way="forth")
)
exercise.mistake("one direction is enough: an answer that is implied joins", hint="Both imply each other.")(
    _entropy(way="back")
)
exercise.mistake("either direction is enough", hint="Same meaning: both imply each other.")(_entropy(way="either"))
exercise.mistake("an answer joins a group of which any member agrees", hint="The group's first member decides.")(
    _entropy(member="any")
)
exercise.mistake("an answer joins a group only if all members agree", hint="The group's first member decides.")(
    _entropy(member="all")
)
exercise.mistake("a group's latest member is asked", hint="The group's first member decides.")(_entropy(member="last"))
exercise.mistake("log-probabilities are ignored, answers are counted", hint="A group has the mass of its answers.")(
    _entropy(ignore=True)
)
exercise.mistake("log-probabilities are added up within a group", hint="Probabilities add up: logsumexp.")(
    _entropy(masses=lambda parts: torch.stack([part.sum() for part in parts]).log_softmax(0))
)
exercise.mistake("a group has the mean probability of its answers", hint="Probabilities of one meaning add up.")(
    _entropy(masses=lambda parts: torch.stack([p.logsumexp(0) - math.log(len(p)) for p in parts]).log_softmax(0))
)
exercise.mistake("a group has the probability of its likeliest answer", hint="Probabilities of one meaning add up.")(
    _entropy(masses=lambda parts: torch.stack([part.max() for part in parts]).log_softmax(0))
)
exercise.mistake(
    "the groups' probabilities aren't normalized", hint="The samples are all we know: their shares sum to 1."
)(_entropy(masses=lambda parts: torch.stack([part.logsumexp(0) for part in parts])))
exercise.mistake("it is the entropy of the answers, not of the groups", hint="Add up the mass of each group first.")(
    _entropy(told=lambda mass, logs: -(logs.log_softmax(0).exp() * logs.log_softmax(0)).sum())
)
exercise.mistake("it is measured in bits", hint="The natural logarithm: nats.")(_entropy(scale=math.log(2)))
exercise.mistake("the sign is missing", hint="Entropy is minus the mean logarithm.")(_entropy(scale=-1.0))


@exercise.mistake(
    "probabilities are made before they are compared, and underflow",
    hint="exp(-900) is 0, and 0 / 0 is NaN. Stay with logarithms until shares are made.",
)
def underflows(entails, logprobs=None):
    groups = grouped(entails)
    p = torch.ones(len(groups)) if logprobs is None else logprobs.exp()
    mass = torch.zeros(int(groups.max()) + 1, dtype=p.dtype).index_add(0, groups, p)
    mass = mass / mass.sum()
    return -torch.special.entr(mass).sum().neg(), groups


@exercise.mistake(
    "groups are chained: friends of friends share a group", hint="Only the group's first member is asked."
)
def chained(entails, logprobs=None):
    n = len(entails)
    linked = (entails & entails.T) | torch.eye(n, dtype=torch.bool)
    for _ in range(n):
        linked = (linked.float() @ linked.float()) > 0
    return _entropy()(linked, logprobs)


@exercise.mistake(
    "surprisals are averaged over samples, not over probability", hint="Each group is weighted by its p(C)."
)
def over_samples(entails, logprobs=None):
    groups = grouped(entails)
    logs = torch.zeros(len(groups)) if logprobs is None else logprobs
    mass = torch.stack([logs[groups == c].logsumexp(0) for c in range(int(groups.max()) + 1)]).log_softmax(0)
    return -mass[groups].mean(), groups


exercise.mistake("the mean surprisal of the groups comes back", hint="Weighted by each group's probability.")(
    _entropy(told=lambda mass, logs: -mass.mean())
)


@exercise.mistake(
    "it is divided by the logarithm of the number of answers", hint="In nats, not as a share of the most."
)
def as_share(entails, logprobs=None):
    value, groups = _entropy()(entails, logprobs)
    return value / max(math.log(len(groups)), 1e-6), groups


@exercise.mistake(
    "a group has its first member's number", hint="Groups are numbered 0, 1, 2 … in the order in which they open."
)
def by_first_member(entails, logprobs=None):
    value, groups = _entropy()(entails, logprobs)
    return value, (groups[:, None] == groups[None]).int().argmax(1)


@exercise.mistake("groups are counted from 1", hint="From 0, in the order in which they open.")
def from_one(entails, logprobs=None):
    value, groups = _entropy()(entails, logprobs)
    return value, groups + 1


@exercise.alternative
def by_labels(entails, logprobs=None):
    """Groups by opening one after the other; entropy by torch.special.entr."""
    both = entails & entails.T
    n = len(both)
    groups = torch.full((n,), -1)
    count = 0
    for i in range(n):
        if groups[i] < 0:
            joins = both[i].clone()
            joins[i] = True
            joins[:i] = False
            groups = torch.where(joins & (groups < 0), count, groups)
            count += 1
    share = torch.full((n,), 1.0) if logprobs is None else (logprobs - logprobs.max()).exp()
    mass = torch.zeros(count, dtype=share.dtype).index_add(0, groups, share / share.sum())
    return torch.special.entr(mass).sum(), groups


@exercise.alternative
def in_lists(entails, logprobs=None):
    value, groups = _entropy()(entails, logprobs)
    return [value, groups]
