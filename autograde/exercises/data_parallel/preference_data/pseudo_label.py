"""`pseudo_label(probabilities, labels, threshold=0.9)`: A model's own sure answers become labels."""

from __future__ import annotations

import numpy as np
import torch

from autograde.exercise import Draft, case

exercise = Draft(
    "pseudo_label",
    points=2,
    dtypes=(torch.float64,),
    forbid=["sklearn"],
    no_gradient="labels are whole numbers",
    fresh=True,
    hints=[
        "Two questions an item: has somebody labeled it already? And how sure is the model?",
        "sure, guess = probabilities.max(-1): the surest class and how sure. An item changes where its label is -1 and "
        "sure > threshold.",
        "torch.where((labels == -1) & (sure > threshold), guess, labels)",
    ],
)


def _guesses(g, n, classes, known=0.3, sharp=2.0):
    probabilities = (sharp * torch.randn(n, classes, generator=g)).softmax(-1)
    labels = torch.randint(classes, (n,), generator=g)
    return probabilities, labels.masked_fill(torch.rand(n, generator=g) >= known, -1)


@exercise.cases
def models(g):
    yield case(
        torch.tensor([[0.97, 0.03], [0.4, 0.6], [0.02, 0.98], [0.05, 0.95], [0.93, 0.07]]),
        torch.tensor([-1, -1, 0, -1, 1]),
        label="five items, two classes",
    )
    yield case(*_guesses(g, 12, 3, sharp=4.0), 0.8, label="three classes")
    yield case(*_guesses(g, 7, 9), threshold=0.3, label="a low threshold")
    yield case(
        torch.tensor([[0.25, 0.75], [0.75, 0.25], [0.5, 0.5], [0.125, 0.875]]),
        torch.tensor([-1, -1, -1, -1]),
        0.75,
        label="exactly at the threshold",
    )
    yield case(
        torch.tensor([[0.125, 0.4375, 0.4375], [0.5, 0.5, 0.0], [0.375, 0.25, 0.375]]),
        torch.tensor([-1, -1, -1]),
        0.25,
        label="ties",
    )
    probabilities, labels = _guesses(g, 8, 4, sharp=6.0)
    yield case(probabilities, (probabilities.argmax(-1) + 1) % 4, 0.6, label="all labeled, and the model disagrees")
    yield case(*_guesses(g, 10, 3, known=0.0, sharp=5.0), 0.9, label="none labeled")
    yield case(*_guesses(g, 7, 3, sharp=0.3), 0.95, label="a model that is sure of nothing")
    yield case(*_guesses(g, 400, 6, sharp=4.0), 0.85, label="400 items")
    yield case(torch.tensor([[1.0]]), torch.tensor([-1]), 0.99, label="one item, one class")
    yield case(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), label="no item")


@exercise.oracle
def sklearn_self_training(probabilities, labels, threshold=0.9):
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.semi_supervised import SelfTrainingClassifier

    if not (labels == -1).any():  # refused by scikit-learn, or left with a warning
        return labels.clone()
    table = probabilities.numpy()

    class Known(ClassifierMixin, BaseEstimator):
        """A model that says what stands in the table, whatever it is taught."""

        def fit(self, rows, taught):
            self.classes_ = np.arange(table.shape[1])
            return self

        def predict_proba(self, rows):
            return table[rows[:, 0].astype(int)]

    model = SelfTrainingClassifier(Known(), threshold=threshold, max_iter=1)
    model.fit(np.arange(len(labels))[:, None], labels.numpy())
    return torch.from_numpy(model.transduction_.astype(np.int64))


@exercise.law("The labels are int64")
def are_int64(out, one, call):
    return out.dtype is torch.int64 or f"they are {out.dtype}"


@exercise.law("What somebody labeled stays as it is")
def people_first(out, one, call):
    labels = one.args[1]
    return torch.equal(out[labels >= 0], labels[labels >= 0])


@exercise.law("A second round with the same model changes nothing")
def settled(out, one, call):
    return torch.equal(call(one.args[0], out, *one.args[2:], **one.kwargs), out)


def _labeler(sure=lambda p: p.amax(-1), guess=lambda p: p.argmax(-1), open=None, else_=None, over=None):
    open = open or (lambda labels: labels < 0)
    else_ = else_ or (lambda labels, guess: labels)
    over = over or (lambda sure, threshold: sure > threshold)

    def pseudo_label(probabilities, labels, threshold=0.9):
        named = guess(probabilities)
        taken = open(labels) & over(sure(probabilities), threshold)
        return torch.where(taken, named, else_(labels, named)).clone()

    return pseudo_label


exercise.alternative(_labeler())

exercise.mistake("labels that people gave are overwritten", hint="Only items whose label is -1 are open.")(
    _labeler(open=lambda labels: torch.ones_like(labels, dtype=torch.bool))
)
exercise.mistake(
    "an item changes if it is open or the model is sure", hint="Both: its label is -1, and the model is sure."
)(
    lambda probabilities, labels, threshold=0.9: torch.where(
        (labels < 0) | (probabilities.amax(-1) > threshold), probabilities.argmax(-1), labels
    )
)
exercise.mistake("every open item gets a label", hint="Only where the model is surer than the threshold.")(
    _labeler(over=lambda sure, threshold: torch.ones_like(sure, dtype=torch.bool))
)
exercise.mistake("exactly the threshold is enough", hint="The docstring asks for more than the threshold.")(
    _labeler(over=lambda sure, threshold: sure >= threshold)
)
exercise.mistake("items below the threshold are labeled", hint="The model should be sure, not unsure.")(
    _labeler(over=lambda sure, threshold: sure <= threshold)
)
exercise.mistake("of equally likely classes the last is taken", hint="The first: argmax looks from the left.")(
    _labeler(guess=lambda p: p.shape[-1] - 1 - p.flip(-1).argmax(-1))
)
exercise.mistake("threshold is ignored", hint="0.9 is only the default.")(
    _labeler(over=lambda sure, threshold: sure > 0.9)
)
exercise.mistake(
    "what is not sure gets class 0", hint="An item that stays open keeps -1: 0 is a class, not the absence of one."
)(_labeler(else_=lambda labels, named: labels.clamp(min=0)))
exercise.mistake(
    "the lead over the second class is held against the threshold", hint="The largest probability itself."
)(_labeler(sure=lambda p: p.topk(min(2, p.shape[-1]), -1).values.diff(dim=-1).sum(-1).abs()))
exercise.mistake("class 0 is never given", hint="0 is a class like the others; only -1 stands for no label.")(
    _labeler(guess=lambda p: torch.where(p.argmax(-1) > 0, p.argmax(-1), -1))
)
exercise.mistake("items that people labeled with class 0 count as open", hint="Open is -1 alone: 0 is a class.")(
    _labeler(open=lambda labels: labels <= 0)
)


@exercise.mistake("only the new labels are returned", hint="All n labels, the old ones among them.")
def only_new(probabilities, labels, threshold=0.9):
    taken = (labels < 0) & (probabilities.amax(-1) > threshold)
    return torch.where(taken, probabilities.argmax(-1), -1)


@exercise.alternative
def one_after_the_other(probabilities, labels, threshold=0.9):
    found = labels.clone()
    for i, row in enumerate(probabilities.tolist()):
        if found[i] == -1 and max(row) > threshold:
            found[i] = row.index(max(row))
    return found
