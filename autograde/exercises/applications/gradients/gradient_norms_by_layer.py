"""`gradient_norms_by_layer(model, path)`: The norm of the gradient of each layer of a model."""

from __future__ import annotations

import math

import torch

from autograde.exercise import Draft, case, same
from autograde.exercises.shared import only

exercise = Draft(
    "gradient_norms_by_layer",
    points=3,
    forbid=["torch.nn.utils.get_total_norm", "torch.nn.utils.clip_grad_norm_"],
    dtypes=(),
    no_gradient="it looks at gradients that are there already",
    atol=0.0,
    hints=[
        "model.get_submodule(path) is the list of layers. What does each of them hold?",
        "For each layer collect p.grad of layer.parameters() where it isn't None, as float64, and add up all squares.",
        "squares = [sum((p.grad.double() ** 2).sum() for p in layer.parameters() if p.grad is not None) for layer in "
        "model.get_submodule(path)]; torch.tensor([float(s) ** 0.5 for s in squares])",
    ],
)


@exercise.cases
def norm_cases(g):
    def some(*shape, size=1.0, dtype=torch.float32):
        return (torch.randn(*shape, generator=g) * size).to(dtype)

    def layer(size=1.0):
        return {"weight": some(4, 3, size=size), "bias": some(4, size=size)}

    yield case([layer(), layer(3.0), layer(0.2)], "layers", label="three layers")
    yield case([layer()], "model.layers", label="one layer, in a model in a model")
    yield case([layer(10.0 ** (i - 6)) for i in range(12)], "layers", label="twelve layers")
    yield case(
        [
            {"attn.q.weight": some(3, 3), "attn.k.weight": some(3, 3), "norm.weight": some(3)},
            {"attn.q.weight": some(3, 3, size=9), "attn.k.weight": None, "norm.weight": some(3)},
        ],
        "transformer.h",
        label="parts within parts; one has no gradient",
    )
    yield case([layer(), {"weight": None, "bias": None}, layer()], "layers", label="a layer without any gradient")
    yield case(
        [layer(), layer()],
        "model.layers",
        outside=[["model.embed.weight", some(5, 3, size=50)], ["head.weight", some(5, 3, size=50)]],
        label="an embedding and a head outside",
    )
    yield case(
        [layer(), layer()],
        "decoder.layers",
        outside=[["encoder.layers.0.weight", some(3, 3, size=5)], ["decoder.layers_norm.weight", some(4)]],
        label="an encoder has layers, too",
    )
    yield case(
        [{"w": some(6, size=1e-6, dtype=torch.float16)}, {"w": some(2, 5, size=300.0, dtype=torch.float16)}],
        "layers",
        label="float16: tiny and large gradients",
    )
    yield case([{"w": some(5, size=1e25)}, {"w": some(5, size=1e-28)}], "layers", label="exploded and vanished")
    yield case(
        [{"a": some(3, 2), "b": "a"}, {"a": some(3, 2), "b": some(3, 2)}], "layers", label="two names for one parameter"
    )
    shared = some(3, 2)
    yield case(
        [{"a": shared, "b": some(3)}, {"a": "0/a", "b": some(3)}, {"b": "0/a"}],
        "layers",
        label="one parameter in three layers",
    )
    mixed = {"weight": some(3, 4, dtype=torch.bfloat16), "bias": some(3), "scale": some(2, dtype=torch.float64)}
    yield case([mixed], "stack", label="mixed dtypes")


@exercise.oracle
def torch_norms(layers, path, outside=()):
    found = []
    for layer in layers:
        elsewhere = [g.split("/") for g in layer.values() if isinstance(g, str) and "/" in g]
        held = [*layer.values(), *(layers[int(i)][name] for i, name in elsewhere)]
        gradients = [g.double() for g in held if isinstance(g, torch.Tensor)]
        found.append(torch.nn.utils.get_total_norm(gradients) if gradients else torch.tensor(0.0))
    return {"norms": torch.stack([norm.double() for norm in found]).float(), "gradients left alone": True}


@exercise.probe
def measured(norms_by_layer, layers, path, outside=()):
    """The norms of a model whose layers hold the given gradients, and whether the gradients are still there.

    layers: a dict from a parameter's dotted name to its gradient (or None, or the name of a parameter that it is tied
    to, "0/name" of one in layer 0) for each. outside: pairs of a dotted path and a gradient, for parameters that stand
    elsewhere in the model.
    """
    import torch
    from torch import nn

    def place(root, name, parameter):
        *folders, last = name.split(".")
        for folder in folders:
            if not hasattr(root, folder):
                root.add_module(folder, nn.Module())
            root = getattr(root, folder)
        root.register_parameter(last, parameter)

    def with_gradient(gradient):
        parameter = nn.Parameter(torch.full((2,) if gradient is None else gradient.shape, 0.25))
        if gradient is not None:
            parameter = nn.Parameter(parameter.detach().to(gradient.dtype))
            parameter.grad = gradient.clone()
        return parameter

    model, stack = nn.Module(), nn.ModuleList()
    for name, gradient in outside:
        place(model, name, with_gradient(gradient))
    known = {}
    for i, layer in enumerate(layers):
        module = nn.Module()
        module.register_buffer("seen", torch.full((2,), 7.0))  # as BatchNorm's: no parameter, and without a gradient
        for name, gradient in layer.items():
            other = gradient if "/" in str(gradient) else f"{i}/{gradient}"
            known[f"{i}/{name}"] = known[other] if isinstance(gradient, str) else with_gradient(gradient)
            place(module, name, known[f"{i}/{name}"])
        stack.append(module)
    *folders, last = path.split(".")
    home = model
    for folder in folders:
        if not hasattr(home, folder):
            home.add_module(folder, nn.Module())
        home = getattr(home, folder)
    home.add_module(last, stack)
    before = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    norms = norms_by_layer(model, path)
    after = [p.grad for p in model.parameters()]
    same = all(
        (b is None) == (a is None) and (b is None or torch.equal(a, b)) for a, b in zip(after, before, strict=True)
    )
    return {"norms": norms, "gradients left alone": same}


def _sized(*values):
    return [{"weight": torch.full((4,), value / 2)} for value in values]


@exercise.law("Layers stand in their order, 10 after 9")
@only("three layers")
def norms_follow_the_order(out, one, call):
    """Layer 10 stands after layer 9."""
    return same(call(_sized(*range(1, 13)), "layers")["norms"], torch.arange(1.0, 13))


@exercise.law("Parts of a layer add up like parts of a vector")
@only("three layers")
def norms_add_like_vectors(out, one, call):
    """Gradients of 3 and 4 are one of 5, whichever way they are split."""
    split = [{"weight": torch.tensor([3.0]), "bias": torch.tensor([0.0, 4.0])}]
    return same(call(split, "h")["norms"], torch.tensor([5.0]))


@exercise.law("From 1e-20 to 1e20 the norm scales along")
@only("three layers")
def norms_scale(out, one, call):
    """Gradients of 1e-20, of 1, of 1e20: the norm scales along."""
    norms = call(_sized(1e-20, 1.0, 1e20), "layers")["norms"]
    return same(norms / torch.tensor([1e-20, 1.0, 1e20]), torch.ones(3), rtol=1e-3)


@exercise.law("Other parts of the model don't count")
@only("three layers")
def norms_ignore_the_rest(out, one, call):
    one_more = call(_sized(2.0, 1.0), "layers", outside=[["other.weight", torch.ones(9)]])["norms"]
    return same(one_more, torch.tensor([2.0, 1.0]))


@exercise.law("The norms are float32")
def norms_are_float32(out, one, call):
    return out["norms"].dtype is torch.float32 or f"they are {out['norms'].dtype}"


@exercise.law("The gradients are only read")
def norms_only_read(out, one, call):
    return out["gradients left alone"]


def _length(gradients):
    """Squares are added in the dtype that the gradients come in."""
    return sum(g.square().sum() for g in gradients).sqrt()


def _norms(
    of_layer=None,
    entries=lambda layer: layer.parameters(),
    wide=torch.float64,
    read=lambda p: p.grad,
    order=list,
    none=None,
):
    """A `gradient_norms_by_layer` with some of its parts exchanged."""

    def gradient_norms_by_layer(model, path):
        found = []
        for layer in order(model.get_submodule(path)):
            gradients = [g if wide is None else g.to(wide) for g in map(read, entries(layer)) if g is not None]
            if gradients:
                found.append((of_layer or _length)(gradients).float())
            elif none is not None:
                found.append(none)
        return torch.stack(found) if found else torch.zeros(0)

    return gradient_norms_by_layer


_ZERO = torch.zeros(())

exercise.mistake("the norms of a layer's parameters are added", hint="Squares add up, norms don't: 3 and 4 make 5.")(
    _norms(lambda gs: sum(g.norm() for g in gs), none=_ZERO)
)

exercise.mistake(
    "the norms of a layer's parameters are averaged", hint="All gradients of a layer are one vector. How long is it?"
)(_norms(lambda gs: sum(g.norm() for g in gs) / len(gs), none=_ZERO))


def _joined(gradients):
    return torch.cat([g.flatten() for g in gradients])


exercise.mistake("the root of the mean square is taken", hint="The sum of the squares, no mean.")(
    _norms(lambda gs: _joined(gs).square().mean().sqrt(), none=_ZERO)
)

exercise.mistake("the root is missing", hint="The norm is the root of the sum of squares.")(
    _norms(lambda gs: _joined(gs).square().sum(), none=_ZERO)
)

exercise.mistake("absolute values are summed", hint="The root of the sum of squares.")(
    _norms(lambda gs: _joined(gs).abs().sum(), none=_ZERO)
)

exercise.mistake("the largest entry is taken", hint="The root of the sum of squares.")(
    _norms(lambda gs: _joined(gs).abs().max(), none=_ZERO)
)

exercise.mistake(
    "the largest norm of a layer's parameters is taken", hint="All gradients of a layer are one vector. How long is it?"
)(_norms(lambda gs: max(g.norm() for g in gs), none=_ZERO))

exercise.mistake(
    "squares are formed in the gradients' own dtype",
    hint="1e-6 squared is 0 in float16, 1e25 squared is inf in float32. Convert to float64 first.",
)(_norms(wide=None, none=_ZERO))

exercise.mistake(
    "squares are formed in float32",
    hint="1e25 squared is inf in float32, and exploded gradients are what you want to see. Use float64.",
)(_norms(wide=torch.float32, none=_ZERO))

exercise.mistake("the weights are measured, not their gradients", hint="parameter.grad")(
    _norms(read=lambda p: p.detach(), none=_ZERO)
)

exercise.mistake("a layer without gradients is left out", hint="Every layer keeps its place: its norm is 0.")(_norms())


@exercise.mistake(
    "a missing gradient isn't expected", hint="A frozen or unused parameter has grad None. It adds nothing."
)
def norms_raising(model, path):
    return torch.stack(
        [_length([p.grad.double() for p in layer.parameters()]).float() for layer in model.get_submodule(path)]
    )


exercise.mistake(
    "layers are sorted as texts", hint="As texts '10' comes before '2'. Take the children in their own order."
)(_norms(order=lambda layers: [layers.get_submodule(n) for n in sorted(dict(layers.named_children()))], none=_ZERO))

exercise.mistake("the last layer comes first", hint="In the order of the forward pass.")(
    _norms(order=lambda layers: list(layers)[::-1], none=_ZERO)
)

exercise.mistake(
    "parts within parts are overlooked",
    hint="A layer holds modules that hold parameters: layer.parameters() finds them all.",
)(_norms(entries=lambda layer: layer.parameters(recurse=False), none=_ZERO))

exercise.mistake("biases are left out", hint="All parameters of the layer.")(
    _norms(entries=lambda layer: (p for n, p in layer.named_parameters() if "bias" not in n), none=_ZERO)
)

exercise.mistake(
    "a tied parameter is counted twice", hint="It is one parameter with two names: layer.parameters() gives it once."
)(_norms(entries=lambda layer: (p for _, p in layer.named_parameters(remove_duplicate=False)), none=_ZERO))


@exercise.mistake(
    "layers are found by a piece of their name",
    hint=("'layers.1' stands in 'layers.10', and an encoder may have layers, too. Use model.get_submodule(path)."),
)
def norms_by_substring(model, path):
    """Asks whether "layers.1" stands in a name: so it does in that of layer 10, and of an encoder's layer 1."""
    short = path.rpartition(".")[2]
    parts = [
        [p.grad for n, p in model.named_parameters() if f"{short}.{i}" in n and p.grad is not None]
        for i in range(len(model.get_submodule(path)))
    ]
    return torch.stack([_length([g.double() for g in part]).float() if part else _ZERO for part in parts])


@exercise.mistake(
    "a parameter that stands in several layers counts in the first one alone",
    hint="model.named_parameters() tells a shared one once. Ask each layer for its own: layer.parameters().",
)
def norms_by_first_name(model, path):
    norms = [0.0] * len(model.get_submodule(path))
    for name, parameter in model.named_parameters():
        if name.startswith(path + ".") and parameter.grad is not None:
            index = int(name[len(path) + 1 :].partition(".")[0])
            norms[index] = math.hypot(norms[index], *parameter.grad.flatten().tolist())
    return torch.tensor(norms)


@exercise.mistake("the whole model's norm is given for every layer", hint="Only the parameters of the layer itself.")
def norms_with_all(model, path):
    """Everything in the model, in every layer's place."""
    count = len(model.get_submodule(path))
    total = _length([p.grad.double() for p in model.parameters() if p.grad is not None])
    return total.float().expand(count)


right_norms = _norms(none=_ZERO)


@exercise.mistake(
    "the norms are given as shares of the whole", hint="The norms as they are: 1e-9 everywhere is worth knowing."
)
def norms_as_shares(model, path):
    norms = right_norms(model, path)
    return norms / norms.norm()


@exercise.mistake("the gradients don't stay as they are", hint="The optimizer still needs them. Only read.")
def norms_and_clear(model, path):
    norms = right_norms(model, path)
    model.zero_grad()
    return norms


exercise.alternative(right_norms)


@exercise.alternative
def norms_by_names(model, path):
    """One pass over all names, with a full prefix; `hypot` never forms a square that overflows."""
    norms, seen = [0.0] * len(model.get_submodule(path)), set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name.startswith(path + ".") and parameter.grad is not None:
            index = int(name[len(path) + 1 :].partition(".")[0])
            if (index, parameter) not in seen:
                norms[index] = math.hypot(norms[index], *parameter.grad.flatten().tolist())
            seen.add((index, parameter))
    return torch.tensor(norms)


@exercise.alternative
def norms_by_library(model, path):
    layers = model.get_submodule(path).children()
    found = [[p.grad.double() for p in layer.parameters() if p.grad is not None] for layer in layers]
    return torch.tensor([float(torch.linalg.vector_norm(_joined(gs))) if gs else 0.0 for gs in found])
