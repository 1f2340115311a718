"""`trainable_fraction(model)`: How much of a model is trained, and what memory that takes."""

from __future__ import annotations

import torch
from torch import nn

from autograde.exercise import Draft, case
from autograde.exercises.shared import pick

exercise = Draft(
    "trainable_fraction",
    points=2,
    no_gradient="parameters are counted",
    rtol=1e-6,  # shares may be small: rounded ones are wrong
    atol=1e-9,
    hints=[
        "Which tensors does an optimizer get? Of which of them does it keep something?",
        "model.parameters() gives every parameter once, also a shared one. p.numel() numbers of p.element_size() "
        "bytes; a gradient is as large as p; AdamW keeps two more of that size.",
        "trained = [p for p in model.parameters() if p.requires_grad]; size = lambda ps: sum(p.numel() * "
        "p.element_size() for p in ps); memory: size(all), size(trained), 2 * size(trained).",
    ],
)

KINDS = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


@exercise.cases
def models(g):
    def some(n, trained, label, kind="float32", **knobs):
        rows = []
        for i in range(n):
            shape = [pick(g, 2, 9) for _ in range(pick(g, 1, 2))]
            rows.append([shape, trained(i), kind if isinstance(kind, str) else kind(i)])
        return case(rows, label=label, **knobs)

    yield some(4, lambda i: i == 1, "one of four is trained")
    yield some(3, lambda i: True, "all are trained")
    yield some(3, lambda i: False, "none is trained")
    kinds = ("bfloat16", "float32", "bfloat16", "float64")
    yield some(6, lambda i: i % 4 in (1, 3), "a bfloat16 model with larger adapters", kind=lambda i: kinds[i % 4])
    yield some(5, lambda i: i in (0, 2), "a trained one is tied to another name", tied=[0])
    yield some(5, lambda i: i > 2, "frozen ones are tied to other names", tied=[0, 1])
    yield some(4, lambda i: i > 0, "with buffers, which nobody trains", buffers=[[7, 3], [11]])
    yield some(4, lambda i: i in (0, 1), "bfloat16 throughout", kind="bfloat16")
    rows = [[[64, 32], i % 8 == 0, "float32"] for i in range(40)] + [[[1], True, "float32"]]
    yield case(rows, label="forty-one of them, one a single number")
    yield case([], label="a model without parameters")


def counted(count, rows, tied=(), buffers=()):
    """What is counted in a model of nested modules with these parameters. Numbers as plain numbers."""
    import torch
    from torch import nn

    model = nn.Module()
    for i, (shape, trained, kind) in enumerate(rows):
        part = nn.Module()
        part.weight = nn.Parameter(torch.ones(shape, dtype=getattr(torch, kind)), requires_grad=trained)
        setattr(model, f"part{i}", part)
    for i in tied:
        other = nn.Module()
        other.weight = getattr(model, f"part{i}").weight
        setattr(model, f"tied{i}", other)
    for i, shape in enumerate(buffers):
        model.register_buffer(f"buffer{i}", torch.zeros(shape))
    found = count(model)
    return {name: float(value) if name == "share" else value for name, value in found.items()}


exercise.probe(counted)


@exercise.oracle
def adamw_itself(rows, tied=(), buffers=()):
    """One step of torch's AdamW on that very model: what it keeps is looked up, not reckoned."""
    parameters = [
        nn.Parameter(torch.ones(shape, dtype=KINDS[kind]), requires_grad=trained) for shape, trained, kind in rows
    ]
    trained = [p for p in parameters if p.requires_grad]
    states = 0
    if trained:
        optimizer = torch.optim.AdamW(trained, foreach=False)
        with torch.enable_grad():
            sum(p.double().sum() for p in trained).backward()
        optimizer.step()
        kept = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
        states = sum(x.untyped_storage().nbytes() for x in kept)
    flat = nn.utils.parameters_to_vector([p.detach().double() for p in parameters]).numel() if parameters else 0
    learnt = nn.utils.parameters_to_vector([p.detach().double() for p in trained]).numel() if trained else 0
    return {
        "trained": learnt,
        "all": flat,
        "share": learnt / flat if flat else 0.0,
        "weights": sum(p.untyped_storage().nbytes() for p in parameters),
        "gradients": sum(p.grad.untyped_storage().nbytes() for p in trained),
        "states": states,
    }


@exercise.law("Counts and bytes are ints")
def whole(out, one, call):
    wrong = [name for name, value in out.items() if name != "share" and type(value) is not int]
    return not wrong or f"{wrong[0]} is a {type(out[wrong[0]]).__name__}"


@exercise.law("A parameter with two names counts once")
def tied_once(out, one, call):
    rows = one.args[0]
    if not rows or one.kwargs:
        return None
    return call(rows, tied=[0]) == out


@exercise.law("Freezing a parameter changes no weight, and what it takes in training is gone")
def frozen_is_free(out, one, call):
    rows = one.args[0]
    if not any(trained for _, trained, _ in rows) or one.kwargs:
        return None
    frozen = call([[shape, False, kind] for shape, _, kind in rows])
    return frozen["weights"] == out["weights"] and not (frozen["gradients"] or frozen["states"] or frozen["trained"])


def _count(
    parameters=lambda model: list(model.parameters()),
    learns=lambda p: p.requires_grad,
    size=lambda p: p.element_size(),
    kept=2,
    share=lambda a, b: a / b if b else 0.0,
    gradient=lambda p: p.requires_grad,
):
    """`trainable_fraction` with some of its parts exchanged."""

    def trainable_fraction(model):
        every = parameters(model)
        trained = [p for p in every if learns(p)]

        def total(some):
            return sum(p.numel() * size(p) for p in some)

        n, m = sum(p.numel() for p in trained), sum(p.numel() for p in every)
        return {
            "trained": n,
            "all": m,
            "share": share(n, m),
            "weights": total(every),
            "gradients": total([p for p in every if gradient(p)]),
            "states": kept * total(trained),
        }

    return trainable_fraction


right = _count()


def _by_names(model):
    return [p for _, p in model.named_parameters(remove_duplicate=False)]


exercise.mistake("a shared parameter counts once for each name", hint="model.parameters() gives it once.")(
    _count(parameters=_by_names)
)
exercise.mistake("buffers count as parameters", hint="model.parameters(), not the state dict.")(
    _count(parameters=lambda model: [*model.parameters(), *model.buffers()])
)
exercise.mistake("the whole state dict is counted", hint="Parameters once, and no buffers.")(
    lambda model: _count(parameters=lambda m: [*_by_names(m), *m.buffers()])(model)
)
exercise.mistake("all parameters are taken to be trained", hint="requires_grad says which are.")(
    _count(learns=lambda p: True, gradient=lambda p: True)
)
exercise.mistake("frozen parameters are taken to have a gradient", hint="A frozen one has none.")(
    _count(gradient=lambda p: True)
)
exercise.mistake("every number is taken to have 4 bytes", hint="element_size() of each parameter.")(
    _count(size=lambda p: 4)
)
exercise.mistake("bytes aren't counted, but numbers", hint="numel() times element_size().")(_count(size=lambda p: 1))
exercise.mistake("AdamW is taken to keep one state", hint="It keeps two: the means of the gradient and of its square.")(
    _count(kept=1)
)
exercise.mistake("weights or gradients are counted among the states", hint="States are exp_avg and exp_avg_sq: two.")(
    _count(kept=3)
)
exercise.mistake("the share is in percent", hint="A number from 0 to 1.")(
    _count(share=lambda a, b: 100 * a / b if b else 0.0)
)
exercise.mistake("the share is that of trained to frozen", hint="Of all, those that are trained included.")(
    _count(share=lambda a, b: a / (b - a) if b > a else 0.0)
)
exercise.mistake("the share counts tensors, not numbers", hint="A matrix counts more than a bias: numel().")(
    lambda model: (
        right(model)
        | {
            "share": sum(p.requires_grad for p in model.parameters()) / max(1, len(list(model.parameters()))),
        }
    )
)
exercise.mistake("a model without parameters divides by zero", hint="Its share is 0.0.")(
    _count(share=lambda a, b: a / b)
)
exercise.mistake("only the first part of the model is looked at", hint="All of it, modules within modules.")(
    _count(parameters=lambda model: list(model.parameters())[:1])
)
exercise.mistake("only matrices are counted", hint="Vectors and single numbers are parameters, too.")(
    _count(parameters=lambda model: [p for p in model.parameters() if p.dim() > 1])
)
exercise.mistake(
    "gradients and states are taken to be float32 for bfloat16 weights",
    hint="torch's AdamW keeps what it keeps in the parameter's own dtype.",
)(
    lambda model: (
        right(model)
        | {
            "gradients": sum(p.numel() * max(4, p.element_size()) for p in model.parameters() if p.requires_grad),
            "states": sum(2 * p.numel() * max(4, p.element_size()) for p in model.parameters() if p.requires_grad),
        }
    )
)


def _but(**changed):
    """Right but for some entries, each made from all of them."""
    return lambda model: (out := right(model)) | {name: make(out) for name, make in changed.items()}


exercise.mistake("'all' counts only the frozen ones", hint="All: frozen and trained.")(
    _but(all=lambda out: out["all"] - out["trained"])
)
exercise.mistake("states are counted in float32", hint="AdamW keeps them in the parameter's own dtype.")(
    _but(states=lambda out: 8 * out["trained"])
)
exercise.mistake("weights are counted in float32", hint="element_size() of each parameter.")(
    _but(weights=lambda out: 4 * out["all"])
)
exercise.mistake("'weights' counts the whole state dict", hint="Parameters once, and no buffers.")(
    lambda model: (
        right(model) | {"weights": sum(x.numel() * x.element_size() for x in [*_by_names(model), *model.buffers()])}
    )
)
exercise.mistake("gradients are counted in float32", hint="A gradient is as large as its parameter.")(
    _but(gradients=lambda out: 4 * out["trained"])
)
exercise.mistake("the share is one of bytes", hint="Of numbers: trained / all.")(
    _but(share=lambda out: out["gradients"] / max(1, out["weights"]))
)
exercise.mistake("'weights' counts only the frozen ones", hint="All parameters, frozen and trained.")(
    _but(weights=lambda out: out["weights"] - out["gradients"])
)
exercise.mistake("frozen parameters are taken to have states", hint="AdamW keeps nothing of what it doesn't train.")(
    _but(states=lambda out: 2 * out["weights"])
)
exercise.mistake("the share is rounded", hint="trained / all, as it is.")(
    _but(share=lambda out: round(out["share"], 2))
)


@exercise.alternative
def by_loop(model):
    out = dict.fromkeys(("trained", "all", "share", "weights", "gradients", "states"), 0)
    for _, p in model.named_parameters():
        n = p.nelement()
        out["all"] += n
        out["weights"] += p.nbytes
        if p.requires_grad:
            out["trained"] += n
            out["gradients"] += p.nbytes
            out["states"] += 2 * p.nbytes
    out["share"] = out["trained"] / max(1, out["all"])
    return out


exercise.alternative(right)
