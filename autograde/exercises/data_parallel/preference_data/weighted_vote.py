"""`weighted_vote(votes, accuracies, prior)`: What follows from rules that are sometimes wrong and often silent."""

from __future__ import annotations

import numpy as np
import torch

from autograde.exercise import Draft, case, keeps_dtype, same

exercise = Draft(
    "weighted_vote",
    points=4,
    dtypes=(torch.float64,),
    forbid=["sklearn"],
    no_gradient="accuracies are measured, not trained",
    hints=[
        "Bayes: how likely is each vote if the true class is c? And a silence?",
        "In logarithms: a vote adds log(accuracy) to the class it names and log((1 - accuracy) / (classes - 1)) to "
        "each other one; a silence adds nothing; the prior adds log(prior), once.",
        "named = votes[:, :, None] == torch.arange(classes); score = torch.where(named, log_hit[:, None], "
        "log_miss[:, None]), 0 where votes < 0; (score.sum(1) + prior.log()).softmax(-1).",
    ],
)


def _rules(g, n, rules, classes, silent=0.4, low=0.55, high=0.95):
    """Votes of rules with drawn accuracies, which keep silent at times; and a prior that isn't even."""
    accuracies = low + (high - low) * torch.rand(rules, generator=g)
    truth = torch.randint(classes, (n, 1), generator=g)
    other = (truth + torch.randint(1, max(classes, 2), (n, rules), generator=g)) % classes
    votes = torch.where(torch.rand(n, rules, generator=g) < accuracies, truth, other)
    prior = torch.rand(classes, generator=g) + 0.2
    return votes.masked_fill(torch.rand(n, rules, generator=g) < silent, -1), accuracies, prior / prior.sum()


@exercise.cases
def opinions(g):
    yield case(
        torch.tensor([[0, 1, 1], [1, -1, -1], [-1, 0, 1], [-1, -1, -1]]),
        torch.tensor([0.9, 0.6, 0.7]),
        torch.tensor([0.3, 0.7]),
        label="two classes, three rules",
    )
    yield case(*_rules(g, 6, 4, 3), label="three classes")
    yield case(*_rules(g, 5, 6, 5, silent=0.6), label="five classes, mostly silence")
    votes, accuracies, prior = _rules(g, 7, 4, 4)
    accuracies[1] = 0.05
    yield case(votes, accuracies, prior, label="a rule worse than chance")
    votes, accuracies, prior = _rules(g, 5, 3, 3, silent=0.2)
    votes[1:3] = -1
    yield case(votes, accuracies, prior, label="nobody says anything")
    yield case(*_rules(g, 8, 1, 2, silent=0.3), label="one rule")
    yield case(*_rules(g, 4, 700, 3, silent=0.1, low=0.3, high=0.6), label="700 rules")
    yield case(*_rules(g, 300, 6, 2), label="300 items")
    votes, accuracies, prior = _rules(g, 5, 3, 4, silent=0.2)
    yield case(votes, accuracies, torch.tensor([0.997, 0.001, 0.001, 0.001]), label="a prior that is nearly sure")
    votes, accuracies, prior = _rules(g, 6, 3, 3)
    votes[votes == 2] = 1
    yield case(votes, accuracies, prior, label="a class that nobody names")
    yield case(votes[:0], accuracies, prior, label="no item")
    yield case(votes[:1], accuracies, prior, label="one item")


@exercise.oracle
@np.errstate(all="ignore")  # asked of inputs that are none, too, to see what a wrong result is right for
def sklearn_bayes(votes, accuracies, prior):
    from sklearn.naive_bayes import CategoricalNB

    classes, dtype = len(prior), accuracies.dtype
    if not len(votes):  # refused by scikit-learn
        return torch.zeros(0, classes, dtype=dtype)
    accuracies, prior = accuracies.double().numpy(), prior.double().numpy()
    bayes = CategoricalNB(min_categories=classes + 1)
    bayes.classes_, bayes.n_features_in_ = np.arange(classes), votes.shape[1]
    bayes.class_log_prior_, bayes.class_count_ = np.log(prior), prior
    bayes.n_categories_ = np.full(votes.shape[1], classes + 1)
    tables = []
    for accuracy in accuracies:
        table = np.full((classes, classes + 1), (1 - accuracy) / max(classes - 1, 1))
        table[np.arange(classes), np.arange(classes)] = accuracy
        table[:, -1] = 1.0  # silence is equally likely whatever the truth
        tables.append(np.log(table))
    bayes.feature_log_prob_ = tables
    seen = np.where(votes.numpy() < 0, classes, votes.numpy())
    return torch.tensor(bayes.predict_proba(seen)).to(dtype)


exercise.law("The result has the dtype of the accuracies")(keeps_dtype)


@exercise.law("Each row is a distribution over the classes")
def sums_to_one(out, one, call):
    return same(out.sum(-1), torch.ones_like(out[:, 0])) and bool((out >= 0).all())


@exercise.law("Where all rules are silent the prior stands")
def silence(out, one, call):
    votes, accuracies, prior = one.args
    if not len(votes):
        return None
    return same(call(torch.full_like(votes[:1], -1), accuracies, prior), prior[None].to(accuracies.dtype))


@exercise.law("A rule that only tosses coins changes nothing")
def coins(out, one, call):
    votes, accuracies, prior = one.args
    if not len(votes):
        return None
    tossed = torch.cat([votes, torch.arange(len(votes))[:, None] % len(prior)], 1)
    level = torch.tensor([1 / len(prior)], dtype=accuracies.dtype)
    return same(call(tossed, torch.cat([accuracies, level]), prior), out, 1e-3, 1e-5)


@exercise.law("In which order the rules are asked doesn't matter")
def order_of_rules(out, one, call):
    votes, accuracies, prior = one.args
    return same(call(votes.flip(1).contiguous(), accuracies.flip(0), prior), out, 1e-3, 1e-5)


def _vote(
    miss=lambda a, k: (1 - a) / max(k - 1, 1),
    hit=lambda a: a,
    prior_of=lambda prior, rules: prior.log(),
    silent=lambda scores, votes: scores.masked_fill(votes[..., None] < 0, 0.0),
    named=lambda votes, k: votes[..., None] == torch.arange(k),
    end=lambda scores: scores.softmax(-1),
):
    """A vote from its parts, in logarithms."""

    def weighted_vote(votes, accuracies, prior):
        k = len(prior)
        hits, misses = hit(accuracies).log()[:, None], miss(accuracies, k).log()[:, None]
        scores = silent(torch.where(named(votes, k), hits, misses), votes).sum(1)
        return end(scores + prior_of(prior, votes.shape[1])).to(accuracies.dtype)

    return weighted_vote


right = _vote()
exercise.alternative(right)

exercise.mistake("every rule has one vote", hint="A rule that is right more often weighs more: use its accuracy.")(
    lambda votes, accuracies, prior: right(votes, torch.full_like(accuracies, 0.75), prior)
)
exercise.mistake("accuracies are ignored and votes are counted", hint="Bayes gives each vote a weight of its own.")(
    lambda votes, accuracies, prior: _counted(votes, torch.ones_like(accuracies), prior)
)
exercise.mistake(
    "accuracies are added up as weights", hint="Probabilities of independent votes multiply: add their logarithms."
)(lambda votes, accuracies, prior: _counted(votes, accuracies, prior))


def _counted(votes, weights, prior):
    each = (votes[..., None] == torch.arange(len(prior))) * weights[:, None]
    total = each.sum(1)
    return torch.where(total.sum(-1, keepdim=True) > 0, total / total.sum(-1, keepdim=True).clamp(min=1e-9), prior)


exercise.mistake(
    "errors aren't spread over the other classes",
    hint="If a rule errs, it names one of classes - 1 others: (1 - accuracy) / (classes - 1) each.",
)(_vote(miss=lambda a, k: 1 - a))
exercise.mistake(
    "errors are spread over all classes", hint="An error names another class: there are classes - 1 of them."
)(_vote(miss=lambda a, k: (1 - a) / k))
exercise.mistake("the prior is left out", hint="Before any vote the classes aren't equally likely: add log(prior).")(
    _vote(prior_of=lambda prior, rules: 0 * prior)
)
exercise.mistake("the prior counts once for every rule", hint="Once an item, not once a vote.")(
    _vote(prior_of=lambda prior, rules: rules * prior.log())
)
exercise.mistake("the prior is added without its logarithm", hint="All terms are logarithms of probabilities.")(
    _vote(prior_of=lambda prior, rules: prior)
)
exercise.mistake(
    "silence counts as a vote for the last class", hint="-1 as an index is the last place. A silent rule adds nothing."
)(_vote(named=lambda votes, k: (votes % k)[..., None] == torch.arange(k), silent=lambda scores, votes: scores))
exercise.mistake("silence counts as a vote for class 0", hint="A silent rule adds nothing to any class.")(
    lambda votes, accuracies, prior: right(votes.clamp(min=0), accuracies, prior)
)
exercise.mistake(
    "items on which all are silent are spread evenly over the classes", hint="Where nobody speaks, the prior stands."
)(
    lambda votes, accuracies, prior: torch.where(
        (votes < 0).all(1, keepdim=True), torch.full_like(prior, 1 / len(prior)), right(votes, accuracies, prior)
    )
)
exercise.mistake("the winner takes all", hint="A distribution: how sure the vote is belongs to the answer.")(
    lambda votes, accuracies, prior: (
        right(votes, accuracies, prior).argmax(-1, keepdim=True) == torch.arange(len(prior))
    ).to(accuracies.dtype)
)
exercise.mistake("the scores aren't normalized", hint="softmax over the classes: each row sums to 1.")(
    _vote(end=lambda scores: scores.exp())
)
exercise.mistake("logarithms are returned", hint="Probabilities: softmax, not log_softmax.")(
    _vote(end=lambda scores: scores.log_softmax(-1))
)
exercise.mistake("votes against a class are left out", hint="A vote for one class is a vote against the others.")(
    _vote(miss=lambda a, k: torch.ones_like(a))
)


@exercise.mistake(
    "probabilities are multiplied until nothing is left",
    hint="Hundreds of factors below 1 are 0 in float32: add logarithms, and let softmax normalize.",
)
def by_products(votes, accuracies, prior):
    k = len(prior)
    named = votes[..., None] == torch.arange(k)
    each = torch.where(named, accuracies[:, None], ((1 - accuracies) / (k - 1))[:, None])
    product = each.masked_fill(votes[..., None] < 0, 1.0).prod(1) * prior
    return product / product.sum(-1, keepdim=True)


@exercise.alternative
def item_by_item(votes, accuracies, prior):
    k, rows = len(prior), []
    for said in votes.tolist():
        score = prior.double().log().clone()
        for vote, accuracy in zip(said, accuracies.double(), strict=True):
            if vote >= 0:
                score += torch.log((1 - accuracy) / (k - 1))
                score[vote] += torch.log(accuracy) - torch.log((1 - accuracy) / (k - 1))
        rows.append((score - score.logsumexp(0)).exp())
    return (torch.stack(rows) if rows else torch.zeros(0, k, dtype=torch.float64)).to(accuracies.dtype)
