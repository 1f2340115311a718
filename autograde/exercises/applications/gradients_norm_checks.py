"""What gradient norms in 02_applications/10_gradients are judged by: torch's get_total_norm in float64."""

from __future__ import annotations

import torch

from autograde.exercise import case, same
from autograde.exercises.applications.gradients_checks import only


def measured(norms_by_layer, layers, path, outside=()):
    """The norms of a model whose layers hold the given gradients, and whether the gradients are still there.

    layers: a dict from a parameter's dotted name to its gradient (or None, or the name of a parameter that it is tied
    to) for each. outside: pairs of a dotted path and a gradient, for parameters that stand elsewhere in the model.
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
    for layer in layers:
        module, known = nn.Module(), {}
        for name, gradient in layer.items():
            known[name] = known[gradient] if isinstance(gradient, str) else with_gradient(gradient)
            place(module, name, known[name])
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
    same = all((b is None) == (a is None) and (b is None or torch.equal(a, b))
               for a, b in zip(after, before, strict=True))
    return {"norms": norms, "gradients left alone": same}


def torch_norms(layers, path, outside=()):
    found = []
    for layer in layers:
        gradients = [g.double() for g in layer.values() if isinstance(g, torch.Tensor)]
        found.append(torch.nn.utils.get_total_norm(gradients) if gradients else torch.tensor(0.0))
    return {"norms": torch.stack([norm.double() for norm in found]).float(), "gradients left alone": True}


def norm_cases(g):
    def some(*shape, size=1.0, dtype=torch.float32):
        return (torch.randn(*shape, generator=g) * size).to(dtype)

    def layer(size=1.0):
        return {"weight": some(4, 3, size=size), "bias": some(4, size=size)}

    yield case([layer(), layer(3.0), layer(0.2)], "layers", label="three layers")
    yield case([layer()], "model.layers", label="one layer, in a model in a model")
    yield case([layer(10.0 ** (i - 6)) for i in range(12)], "layers", label="twelve layers")
    yield case([{"attn.q.weight": some(3, 3), "attn.k.weight": some(3, 3), "norm.weight": some(3)},
                {"attn.q.weight": some(3, 3, size=9), "attn.k.weight": None, "norm.weight": some(3)}],
               "transformer.h", label="parts within parts; one has no gradient")
    yield case([layer(), {"weight": None, "bias": None}, layer()], "layers", label="a layer without any gradient")
    yield case([layer(), layer()], "model.layers",
               outside=[["model.embed.weight", some(5, 3, size=50)], ["head.weight", some(5, 3, size=50)]],
               label="an embedding and a head outside")
    yield case([layer(), layer()], "decoder.layers",
               outside=[["encoder.layers.0.weight", some(3, 3, size=5)], ["decoder.layers_norm.weight", some(4)]],
               label="an encoder has layers, too")
    yield case([{"w": some(6, size=1e-6, dtype=torch.float16)}, {"w": some(2, 5, size=300.0, dtype=torch.float16)}],
               "layers", label="float16: tiny and large gradients")
    yield case([{"w": some(5, size=1e25)}, {"w": some(5, size=1e-28)}], "layers", label="exploded and vanished")
    yield case([{"a": some(3, 2), "b": "a"}, {"a": some(3, 2), "b": some(3, 2)}], "layers",
               label="two names for one parameter")
    yield case([{"weight": some(3, 4, dtype=torch.bfloat16), "bias": some(3)}], "stack", label="mixed dtypes")


def _sized(*values):
    return [{"weight": torch.full((4,), value / 2)} for value in values]


@only("three layers")
def norms_follow_the_order(out, one, call):
    """Layer 10 stands after layer 9."""
    return same(call(_sized(*range(1, 13)), "layers")["norms"], torch.arange(1.0, 13))


@only("three layers")
def norms_add_like_vectors(out, one, call):
    """Gradients of 3 and 4 are one of 5, whichever way they are split."""
    split = [{"weight": torch.tensor([3.0]), "bias": torch.tensor([0.0, 4.0])}]
    return same(call(split, "h")["norms"], torch.tensor([5.0]))


@only("three layers")
def norms_scale(out, one, call):
    """Gradients of 1e-20, of 1, of 1e20: the norm scales along."""
    norms = call(_sized(1e-20, 1.0, 1e20), "layers")["norms"]
    return same(norms / torch.tensor([1e-20, 1.0, 1e20]), torch.ones(3), rtol=1e-3)


@only("three layers")
def norms_ignore_the_rest(out, one, call):
    one_more = call(_sized(2.0, 1.0), "layers", outside=[["other.weight", torch.ones(9)]])["norms"]
    return same(one_more, torch.tensor([2.0, 1.0]))


def norms_only_read(out, one, call):
    return out["gradients left alone"]
