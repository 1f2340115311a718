"""`fisher_diagonal(model, x)`: How much each weight of a classifier matters for what it says about x."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case
from autograde.exercises.shared import randn

exercise = Draft(
    "fisher_diagonal",
    points=4,
    dtypes=(torch.float64,),
    no_gradient="it is a fixed number for each weight, computed once",
    hints=[
        "One example at a time, and one class at a time: what is squared is the gradient of a single log-probability.",
        "torch.autograd.grad(log_p[c], parameters, retain_graph=True) gives them without touching .grad. Their "
        "squares are weighed with the model's own probability of c, and averaged over the examples.",
        "for row in x: log_p = model(row[None]).log_softmax(-1)[0]; for c, p in enumerate(log_p.detach().exp()): for "
        "each parameter total[name] += p * gradient.square() / len(x).",
    ],
)


@exercise.cases
def classifiers(g):
    def some(*sizes, scale=1.0):
        return [[randn(g, o, i) * scale / i**0.5, randn(g, o) / 2] for i, o in zip(sizes, sizes[1:], strict=False)]

    yield case(some(3, 4), randn(g, 5, 3), label="one layer, four classes")
    yield case(some(4, 5, 3), randn(g, 6, 4), label="two layers, three classes")
    yield case(some(3, 4, 5), 2 * randn(g, 2, 3), label="two examples, five classes")
    yield case(some(4, 3, 6), randn(g, 1, 4), label="one example")
    yield case(some(3, 5, 2, scale=6.0), randn(g, 7, 3), label="a model that is sure of itself")
    yield case(some(2, 3, 4), randn(g, 4, 2), frozen=[0], label="the lower layer is frozen")
    yield case(some(3, 1, 3), randn(g, 5, 3), train=False, label="in eval mode, one hidden unit")
    yield case(some(3, 4, 3), randn(g, 5, 3), grads=True, label="there are gradients already")
    yield case(some(2, 3), randn(g, 60, 2), label="sixty examples")
    yield case(some(3, 2, 4), randn(g, 3, 3), spare=True, label="a parameter that isn't used")
    yield case(some(2, 3, 3), randn(g, 4, 2), loud=True, label="a model that says more in train mode")


@exercise.probe
def measured(fisher_diagonal, layers, x, frozen=(), train=True, grads=False, spare=False, loud=False):
    """The Fisher information that is found for a network of these layers, and what else has become of the network.

    layers: pairs of a weight and a bias; tanh stands between them. frozen: numbers of layers that aren't trained.
    train: the mode that the model is in. grads: whether its parameters hold a gradient of ones. spare: whether there is
    a parameter that nothing hangs on. loud: whether logits are twice as large in train mode.
    """
    import torch
    from torch import nn

    parts = []
    for i, (weight, bias) in enumerate(layers):
        layer = nn.Linear(weight.shape[1], weight.shape[0]).to(weight.dtype)
        layer.weight, layer.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
        parts += [layer.requires_grad_(i not in frozen), nn.Tanh()]
    model = nn.Sequential(*parts[:-1])
    if loud:
        model.register_forward_hook(lambda model, given, logits: logits * (2 if model.training else 1))
    if spare:
        model.register_parameter("spare", nn.Parameter(torch.ones(2, dtype=x.dtype)))
    model.train(train)
    for p in model.parameters():
        p.grad = torch.ones_like(p) if grads else None
    found = dict(fisher_diagonal(model, x))
    untouched = all(p.grad is None if not grads else bool((p.grad == 1).all()) for p in model.parameters())
    return {
        "fisher": {name: f.detach() for name, f in found.items()},
        "gradients left alone": untouched,
        "mode left alone": model.training == train,
        "cut off from the graph": not any(f.requires_grad for f in found.values()),
        "flags left alone": [p.requires_grad for p in model.parameters()]
        == [True] * spare + [i not in frozen for i in range(len(layers)) for _ in range(2)],
    }


@exercise.oracle
def torchs_jacobian(layers, x, frozen=(), train=True, grads=False, spare=False, loud=False):
    """torch.func's Jacobian of all log-probabilities, in float64."""
    kinds = ("weight", "bias")
    params = {f"{2 * i}.{kind}": pair[k].double() for i, pair in enumerate(layers) for k, kind in enumerate(kinds)}

    def log_p(some, row):
        for i in range(len(layers)):
            row = F.linear(row if i == 0 else row.tanh(), some[f"{2 * i}.weight"], some[f"{2 * i}.bias"])
        return (row * (2 if loud and train else 1)).log_softmax(-1)

    rows = x.double()
    jacobian = torch.func.vmap(torch.func.jacrev(log_p), (None, 0))(params, rows)  # [n, classes, …]
    p = torch.func.vmap(log_p, (None, 0))(params, rows).exp()
    found = {n: torch.einsum("nc,nc...->...", p, j.square()) / len(x) for n, j in jacobian.items()}
    kept = {n: f.to(x.dtype) for n, f in found.items() if int(n.split(".")[0]) // 2 not in frozen}
    kept |= {"spare": torch.zeros(2, dtype=x.dtype)} if spare else {}
    told = ("gradients left alone", "mode left alone", "cut off from the graph", "flags left alone")
    return {"fisher": kept} | dict.fromkeys(told, True)


@exercise.law("Each tensor has the dtype of its parameter")
def own_dtype(out, one, call):
    return all(f.dtype == one.args[1].dtype for f in out["fisher"].values())


@exercise.law("The same examples twice give the same")
def twice(out, one, call):
    if one.made or len(one.args[1]) > 10:
        return None
    again = call(one.args[0], torch.cat([one.args[1]] * 2), *one.args[2:], **one.kwargs)["fisher"]
    return all(torch.allclose(f, again[n], rtol=1e-3, atol=1e-6) for n, f in out["fisher"].items())


def _own(model, frozen_too=False):
    return {n: p for n, p in model.named_parameters() if p.requires_grad or frozen_too}


def _gradients(value, params):
    found = torch.autograd.grad(value, list(params.values()), retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, params.values(), strict=True)]


def _fisher(
    log=lambda logits: logits.log_softmax(-1),
    weigh=lambda log_p: log_p.exp(),
    square=torch.square,
    mean=lambda total, n: total / n,
    rows=lambda x: x[:, None],
    prepare=lambda model: None,
    params=_own,
):
    """The diagonal from its parts, `rows` being the batches that one gradient is taken of."""

    def fisher_diagonal(model, x):
        prepare(model)
        mine = params(model)
        total = {n: torch.zeros_like(p) for n, p in mine.items()}
        for batch in rows(x):
            log_p = log(model(batch)).mean(0)
            for value, p in zip(log_p, weigh(log_p.detach()), strict=True):
                for name, gradient in zip(mine, _gradients(value, mine), strict=True):
                    total[name] += p * square(gradient)
        return {n: mean(f, len(x)).detach() for n, f in total.items()}

    return fisher_diagonal


right = _fisher()


@exercise.mistake(
    "gradients are averaged over the examples first, and squared then",
    hint="In a mean over the batch, gradients of different examples cancel. Square each example's own.",
)
def squared_mean(model, x):
    mine = _own(model)
    log_p = model(x).log_softmax(-1)
    total = {n: torch.zeros_like(p) for n, p in mine.items()}
    for c in range(log_p.shape[1]):
        weighed = (log_p[:, c] * log_p[:, c].detach().exp().sqrt()).mean()
        for name, gradient in zip(mine, _gradients(weighed, mine), strict=True):
            total[name] += gradient.square()
    return total


@exercise.mistake(
    "log-probabilities are summed over the batch before their gradient is squared, with mean probabilities",
    hint="In a sum over the batch, gradients of different examples cancel. Square each example's own.",
)
def squared_sum(model, x):
    mine = _own(model)
    log_p = model(x).log_softmax(-1)
    total = {n: torch.zeros_like(p) for n, p in mine.items()}
    for value, p in zip(log_p.sum(0), log_p.detach().exp().mean(0), strict=True):
        for name, gradient in zip(mine, _gradients(value, mine), strict=True):
            total[name] += p * gradient.square() / len(x)
    return total


@exercise.mistake(
    "gradients add up in .grad from one backward() to the next",
    hint="Each class of each example has a gradient of its own. torch.autograd.grad returns it, and nothing adds up.",
)
def never_emptied(model, x):
    mine = _own(model)
    total = {n: torch.zeros_like(p) for n, p in mine.items()}
    for row in x:
        log_p = model(row[None]).log_softmax(-1)[0]
        for value in log_p:
            value.backward(retain_graph=True)
            for name, parameter in mine.items():
                total[name] += value.detach().exp() * parameter.grad.square() / len(x)
    return total


def _batch_loss(model, x):
    """One backward of the mean loss with the model's own guesses, then squares."""
    mine = _own(model)
    logits = model(x)
    loss = F.cross_entropy(logits, logits.argmax(-1))
    return {n: g.square() for n, g in zip(mine, _gradients(loss, mine), strict=True)}


exercise.mistake(
    "the gradient of the whole batch's loss is squared, once",
    hint="In a mean over the batch, gradients of different examples cancel. Square each example's own.",
)(_batch_loss)
exercise.mistake(
    "only the likeliest class of each example counts",
    hint="That is one term of the expectation: every class, weighed with its probability.",
)(_fisher(weigh=lambda log_p: F.one_hot(log_p.argmax(), len(log_p)).to(log_p.dtype)))
exercise.mistake("all classes count alike", hint="Weigh each class with the model's own probability of it.")(
    _fisher(weigh=torch.ones_like)
)
exercise.mistake("what comes out is divided by the number of classes, too", hint="Probabilities add up to 1 already.")(
    _fisher(weigh=lambda log_p: log_p.exp() / len(log_p))
)
exercise.mistake("all is scaled so that the largest number is 1", hint="As it is: the strength of EWC scales it.")(
    lambda model, x: _scaled(right(model, x))
)


def _scaled(found):
    most = max(float(f.max()) for f in found.values())
    return {n: f / most for n, f in found.items()}


exercise.mistake("each parameter has one number, the mean over its weights", hint="Every single weight has its own.")(
    lambda model, x: {n: f.mean() for n, f in right(model, x).items()}
)
exercise.mistake("classes are averaged with equal weight", hint="Weigh each class with its own probability.")(
    _fisher(weigh=lambda log_p: torch.full_like(log_p, 1 / len(log_p)))
)
exercise.mistake(
    "probabilities weigh the gradients before they are squared", hint="p times the square, not (p · gradient)²."
)(_fisher(weigh=lambda log_p: log_p.exp().square()))
exercise.mistake("squares are summed over the examples", hint="The mean over the examples: divide by their number.")(
    _fisher(mean=lambda total, n: total)
)
exercise.mistake(
    "gradients are averaged over the classes before they are squared, or never squared",
    hint="Their expectation is 0. Their squares say how much a weight matters.",
)(_fisher(square=lambda g: g))
exercise.mistake("absolute gradients are averaged, not squares", hint="Squares: g².")(_fisher(square=torch.abs))
exercise.mistake("the root of the mean square comes back", hint="The mean of squares itself.")(
    _fisher(mean=lambda total, n: (total / n).sqrt())
)
exercise.mistake("the gradients are those of the logits", hint="Of log-probabilities: log_softmax first.")(
    _fisher(log=lambda logits: logits, weigh=lambda logits: logits.softmax(-1))
)
exercise.mistake("the gradients are those of the probabilities", hint="Of log-probabilities: log_softmax.")(
    _fisher(log=lambda logits: logits.softmax(-1), weigh=lambda p: p)
)
exercise.mistake("the first example alone is looked at", hint="All rows of x.")(lambda model, x: right(model, x[:1]))
exercise.mistake("the softmax runs over the examples", hint="Classes are the last dimension.")(
    lambda model, x: _over_examples(model, x)
)


def _over_examples(model, x):
    mine = _own(model)
    log_p = model(x).log_softmax(0)
    total = {n: torch.zeros_like(p) for n, p in mine.items()}
    for row in log_p:
        for value in row:
            for name, gradient in zip(mine, _gradients(value, mine), strict=True):
                total[name] += value.detach().exp() * gradient.square() / len(x)
    return total


exercise.mistake("frozen parameters get an entry of zeros", hint="Only parameters with requires_grad.")(
    lambda model, x: (
        right(model, x) | {n: torch.zeros_like(p) for n, p in model.named_parameters() if not p.requires_grad}
    )
)
exercise.mistake("frozen parameters are switched on", hint="Leave requires_grad as it is, and those parameters out.")(
    _fisher(prepare=lambda model: model.requires_grad_(True))
)
exercise.mistake("the model is switched to eval mode and left there", hint="It is used in the mode that it is in.")(
    _fisher(prepare=lambda model: model.eval())
)


@exercise.mistake(
    "the model is switched to eval mode meanwhile", hint="It is used in the mode that it is in, whichever that is."
)
def in_eval_mode(model, x):
    was = model.training
    found = right(model.eval(), x)
    model.train(was)
    return found


@exercise.mistake(
    "a parameter that nothing hangs on has no entry", hint="Its gradient is 0 everywhere, and so is its number."
)
def without_zeros(model, x):
    return {n: f for n, f in right(model, x).items() if f.any()}


exercise.mistake("the model is switched to train mode", hint="It is used in the mode that it is in.")(
    _fisher(prepare=lambda model: model.train())
)


@exercise.mistake(
    "backward() leaves its gradients in .grad", hint="torch.autograd.grad returns them and touches nothing."
)
def left_behind(model, x):
    found = right(model, x)
    model.zero_grad()
    F.log_softmax(model(x), -1)[-1, 0].backward()
    return found


@exercise.mistake("gradients that were there are thrown away", hint="Leave .grad alone: torch.autograd.grad.")
def thrown_away(model, x):
    found = right(model, x)
    model.zero_grad()
    return found


@exercise.mistake("what was in .grad is counted, too", hint="backward() adds to .grad. torch.autograd.grad doesn't.")
def added_up(model, x):
    return {n: f if model.get_parameter(n).grad is None else f + 1 for n, f in right(model, x).items()}


exercise.mistake("the result hangs on the parameters' graph", hint="It is a fixed number: detach().")(
    lambda model, x: {n: f + 0 * model.get_parameter(n) for n, f in right(model, x).items()}
)
exercise.mistake("the result is float32, whatever came in", hint="The dtype of the parameter.")(
    lambda model, x: {n: f.float() for n, f in right(model, x).items()}
)


@exercise.alternative
def by_vmap(model, x):
    mine = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}

    def log_p(some, row):
        return torch.func.functional_call(model, some, (row[None],))[0].log_softmax(-1)

    total = {n: torch.zeros_like(p) for n, p in mine.items()}
    for row in x:
        p = log_p(mine, row).detach().exp()
        for n, j in torch.func.jacrev(log_p)(mine, row).items():
            total[n] += torch.tensordot(p, j.square(), 1)
    return {n: f / len(x) for n, f in total.items()}


exercise.alternative(right)
