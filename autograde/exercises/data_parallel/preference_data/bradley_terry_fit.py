"""`bradley_terry_fit(wins, prior=0.1)`: Strengths from pairwise votes, and how sure they are."""

from __future__ import annotations

import functools
import math
import warnings

import numpy as np
import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, same
from autograde.exercises.shared import pick, randn

exercise = Draft(
    "bradley_terry_fit",
    points=4,
    forbid=["sklearn"],
    no_gradient="a fit that is read, not trained through",
    rtol=1e-4,
    atol=1e-5,
    hints=[
        "Write down the loss for two items first: what is its slope, and what its curvature, at strengths s?",
        "With p[i, j] = sigmoid(s[i] - s[j]) the slope is prior * s minus the row sums of wins * (1 - p) plus its "
        "column sums. The curvature between i and j is -(games they played) * p * (1 - p); every row sums to prior.",
        "Start at zero and repeat s = s - torch.linalg.solve(curvature, slope) until nothing moves (20 times is "
        "plenty); the covariance is torch.linalg.inv(curvature) at the end.",
    ],
)


def _played(g, n, games, low=0, scale=1.0):
    """Wins [n, n] of n items of drawn strengths; each couple meets low to games times."""
    strength, wins = scale * randn(g, n), torch.zeros(n, n, dtype=torch.int64)
    for i in range(n):
        for j in range(i):
            met = pick(g, low, games)
            won = int((torch.rand(met, generator=g) < torch.sigmoid(strength[i] - strength[j])).sum())
            wins[i, j], wins[j, i] = won, met - won
    return wins


@exercise.cases
def tournaments(g):
    yield case(torch.tensor([[0, 7, 3], [2, 0, 4], [1, 3, 0]]), label="three items")
    yield case(_played(g, 5, 9, low=2), label="five items")
    yield case(_played(g, 4, 30, low=10), 1.0, label="a firm prior")
    yield case(_played(g, 6, 40, low=5), prior=0.01, label="a faint prior")
    undefeated = _played(g, 4, 8, low=3)
    undefeated[2] += undefeated[:, 2]
    undefeated[:, 2] = 0
    yield case(undefeated, 0.3, label="one item has won every game")
    lonely = torch.zeros(5, 5, dtype=torch.int64)
    lonely[1:, 1:] = _played(g, 4, 9, low=3)
    yield case(lonely, 0.2, label="one item was never compared")
    yield case(_played(g, 3, 4000, low=1000, scale=2.0), 2.0, label="thousands of votes")
    yield case(_played(g, 14, 3), label="14 items, few votes")
    yield case(torch.tensor([[0, 5], [0, 0]]), 0.5, label="two items, one side won all")
    yield case(_played(g, 5, 12, low=4).float() + 0.5 * (1 - torch.eye(5)), label="ties as half a win each, float32")
    yield case(torch.zeros(3, 3, dtype=torch.int64), 2.0, label="no votes at all")
    yield case(torch.zeros(1, 1, dtype=torch.int64), 0.25, label="a single item")


_curvature = functools.partial(torch.autograd.functional.hessian, vectorize=True)


def _loss(s, wins, prior):
    return prior / 2 * (s**2).sum() - (wins * F.logsigmoid(s[:, None] - s)).sum()


@exercise.oracle
def sklearn_logistic(wins, prior=0.1):
    from sklearn.linear_model import LogisticRegression

    n, wins = len(wins), wins.double()
    s = torch.zeros(n, dtype=torch.float64)
    if wins.any():
        winner, loser = np.nonzero(wins.numpy())
        rows = np.eye(n)[winner] - np.eye(n)[loser]
        votes = wins.numpy()[winner, loser] / 2
        # Each vote half as "the first won" and half as "the second lost": scikit-learn wants two classes.
        model = LogisticRegression(C=1 / prior, fit_intercept=False, solver="newton-cholesky", tol=1e-10, max_iter=500)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # asked of a prior near 0, it says that it goes on by L-BFGS
            model.fit(np.concatenate([rows, -rows]), np.repeat([1, 0], len(rows)), np.concatenate([votes, votes]))
        s = torch.tensor(model.coef_[0])
    curvature = _curvature(functools.partial(_loss, wins=wins, prior=prior), s)
    return s, torch.linalg.inv(curvature)


@exercise.law("Both results are float64")
def are_float64(out, one, call):
    return all(x.dtype is torch.float64 for x in out) or f"they are {out[0].dtype} and {out[1].dtype}"


@exercise.law("The strengths sum to 0")
def centered(out, one, call):
    return abs(float(out[0].sum())) < 1e-4 * (1 + float(out[0].abs().max()))


def _prior(one):
    return one.args[1] if len(one.args) > 1 else one.kwargs.get("prior", 0.1)


@exercise.law("If all votes are turned round, so are all strengths, and nobody is surer")
def turned_round(out, one, call):
    strengths, covariance = call(one.args[0].T.contiguous(), _prior(one))
    return same(strengths, -out[0], 1e-3, 1e-4) and same(covariance, out[1], 1e-3, 1e-4)


@exercise.law("With every vote three times and a prior three times as firm, the covariance is a third")
def scales(out, one, call):
    strengths, covariance = call(3 * one.args[0], 3 * _prior(one))
    return same(strengths, out[0], 1e-3, 1e-4) and same(covariance, out[1] / 3, 1e-3, 1e-4)


@exercise.law("Other numbers for the same items change their order alone")
def renumbered(out, one, call):
    wins = one.args[0]
    order = torch.arange(len(wins)).roll(1)
    strengths, covariance = call(wins[order][:, order].contiguous(), _prior(one))
    return same(strengths, out[0][order], 1e-3, 1e-4) and same(covariance, out[1][order][:, order], 1e-3, 1e-4)


def _newton(
    steps=12,
    slope=lambda s, wins, prior, p: prior * s - (wins * (1 - p)).sum(1) + (wins * (1 - p)).sum(0),
    curvature=lambda games, prior, p: _laplacian(games * p * (1 - p)) + prior * torch.eye(len(p), dtype=p.dtype),
    games=lambda wins: wins + wins.T,
    end=lambda s, curved: (s, torch.linalg.inv(curved)),
    start=lambda wins, prior: (wins, prior),
):
    """A fit from its parts; `start` changes what is given, `end` what is returned."""

    def bradley_terry_fit(wins, prior=0.1):
        wins, prior = start(wins.double(), prior)
        s = torch.zeros(len(wins), dtype=torch.float64)
        curved = None
        for step in range(steps + 1):
            p = torch.sigmoid(s[:, None] - s)
            curved = curvature(games(wins), prior, p)
            if step < steps:
                s = s - torch.linalg.solve(curved, slope(s, wins, prior, p))
        return end(s, curved)

    return bradley_terry_fit


def _laplacian(weights):
    weights = weights - weights.diag().diag()
    return weights.sum(1).diag() - weights


fit = _newton()

exercise.mistake(
    "rows are taken for the losers", hint="wins[i, j] is how often i was preferred to j: a large row is a strong item."
)(_newton(start=lambda wins, prior: (wins.T, prior)))
exercise.mistake(
    "the prior is missing in the curvature that gives the covariance",
    hint="The prior's second derivative is prior on the diagonal. It is information, too.",
)(
    _newton(
        end=lambda s, curved: (
            s,
            torch.linalg.pinv(curved - curved.sum(1).diag()),  # every row of the curvature sums to the prior
        )
    )
)
exercise.mistake("the prior is twice as firm", hint="The penalty is prior / 2 times the sum of squares.")(
    _newton(start=lambda wins, prior: (wins, 2 * prior))
)
exercise.mistake("the prior is half as firm", hint="The slope of prior / 2 * s**2 is prior * s.")(
    _newton(start=lambda wins, prior: (wins, prior / 2))
)
exercise.mistake("prior is taken for a variance", hint="It is a precision, 1 / variance: a larger prior holds firmer.")(
    _newton(start=lambda wins, prior: (wins, 1 / prior))
)
exercise.mistake("prior is ignored", hint="The docstring's default is 0.1, but prior may be anything above 0.")(
    _newton(start=lambda wins, prior: (wins, 0.1))
)
exercise.mistake(
    "the loss is averaged over the votes, not summed",
    hint="A sum over the votes: more votes have to weigh more against the prior.",
)(_newton(start=lambda wins, prior: (wins / wins.sum().clamp(min=1), prior)))
exercise.mistake("only win rates are used, not how many games there were", hint="7 of 10 says less than 70 of 100.")(
    _newton(start=lambda wins, prior: (wins / (wins + wins.T).clamp(min=1), prior))
)
exercise.mistake("a single Newton step is taken", hint="Repeat until the strengths no longer move.")(_newton(steps=1))
exercise.mistake(
    "the curvature itself is returned, not its inverse", hint="Where the loss is curved strongly, the strength is sure."
)(_newton(end=lambda s, curved: (s, curved)))
exercise.mistake(
    "each curvature is inverted by itself, as if the strengths were independent",
    hint="Two items that met are correlated. Invert the whole matrix.",
)(_newton(end=lambda s, curved: (s, (1 / curved.diag()).diag())))
exercise.mistake(
    "off the diagonal the curvature has the wrong sign",
    hint="Between i and j it is -(games) * p * (1 - p): if s[i] and s[j] rise together, no vote gets likelier.",
)(_newton(end=lambda s, curved: (s, torch.linalg.inv(2 * curved.diag().diag() - curved))))
exercise.mistake(
    "correlations are returned in place of the covariance",
    hint="The inverse of the Hessian as it is: its diagonal holds the variances.",
)(
    _newton(
        end=lambda s, curved: (
            s,
            torch.linalg.inv(curved) / torch.linalg.inv(curved).diag().outer(torch.linalg.inv(curved).diag()).sqrt(),
        )
    )
)
exercise.mistake("standard errors are returned in place of the covariance", hint="Variances: without the root.")(
    _newton(end=lambda s, curved: (s, torch.linalg.inv(curved).diag().sqrt()))
)
exercise.mistake(
    "the covariance keeps its diagonal alone",
    hint="To compare two items one needs how they vary together, which stands beside the diagonal.",
)(_newton(end=lambda s, curved: (s, torch.linalg.inv(curved).diag().diag())))
exercise.mistake(
    "the first item is put at 0",
    hint="Here the prior says where 0 is: the strengths sum to 0. Nothing has to be fixed.",
)(_newton(end=lambda s, curved: (s - s[0], torch.linalg.inv(curved))))
exercise.mistake(
    "strengths are given on Elo's scale, 400 for a factor of ten", hint="Natural logarithms: sigmoid(s[i] - s[j])."
)(_newton(end=lambda s, curved: (s * 400 / math.log(10), torch.linalg.inv(curved) * (400 / math.log(10)) ** 2)))
exercise.mistake(
    "the curvature counts the wins instead of the games",
    hint="A lost game tells as much as a won one: games = wins + wins.T.",
)(_newton(steps=60, end=lambda s, curved: (s, torch.linalg.inv(curved)), games=lambda wins: wins))
exercise.mistake(
    "the curvature counts each game as half a one",
    hint="wins[i, j] and wins[j, i] both speak about the couple i, j: games = wins + wins.T, and no half.",
)(
    lambda wins, prior=0.1: (
        fit(wins, prior)[0],
        torch.linalg.inv(
            (torch.linalg.inv(fit(wins, prior)[1]) + prior * torch.eye(len(wins), dtype=torch.float64)) / 2
        ),
    )
)
exercise.mistake(
    "the curvature lacks p * (1 - p)",
    hint="The slope of sigmoid is p * (1 - p): a game whose end is sure tells little.",
)(
    lambda wins, prior=0.1: (
        fit(wins, prior)[0],
        torch.linalg.inv(_laplacian((wins + wins.T).double()) + prior * torch.eye(len(wins), dtype=torch.float64)),
    )
)
exercise.mistake(
    "the curvature at strengths 0 gives the covariance",
    hint="Where one item always wins, a vote tells little: p * (1 - p) at the fitted strengths, not 1/4.",
)(lambda wins, prior=0.1: (fit(wins, prior)[0], _newton(steps=0)(wins, prior)[1]))


@exercise.mistake(
    "an item's strength is the log-odds of its share of wins",
    hint="Who met strong opponents is underrated by that. The loss knows against whom a game was.",
)
def by_win_rate(wins, prior=0.1):
    wins = wins.double()
    rate = (wins.sum(1) + prior) / (wins.sum(1) + wins.sum(0) + 2 * prior)
    s = rate.logit()
    return s - s.mean(), fit(wins, prior)[1]


@exercise.mistake("the results are float32", hint="float64: .double() at the start, whatever wins is.")
def in_float32(wins, prior=0.1):
    return tuple(x.float() for x in fit(wins, prior))


exercise.alternative(fit)


@exercise.alternative
def by_lbfgs(wins, prior=0.1):
    """Autograd's slope and curvature, a step that is halved as long as the loss rises."""
    wins, s = wins.double(), torch.zeros(len(wins), dtype=torch.float64)
    loss = functools.partial(_loss, wins=wins, prior=prior)
    for _ in range(60):
        leaf = s.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss(leaf), leaf)
        move = torch.linalg.solve(_curvature(loss, s), slope)
        size = 1.0
        while loss(s - size * move) > loss(s) + 1e-12 and size > 1e-6:
            size /= 2
        s = s - size * move
        if float(move.abs().max()) < 1e-10:
            break
    return [s, torch.linalg.inv(_curvature(loss, s))]
