"""What initialisation in 02_applications/10_gradients is judged by: torch's own."""

from __future__ import annotations

import torch
from torch import nn

from autograde.exercise import case, same


def _int(g, low, high):
    """A random whole number from low to high - 1."""
    return int(torch.randint(low, high, (), generator=g))


def only(*labels):
    """A law on inputs of its own is asked on the cases of these labels: on more of them it would learn nothing new."""

    def of(law):
        def holds(out, one, call):
            return law(out, one, call) if one.label in labels else None

        return holds

    return of


# ---- init_std -------------------------------------------------------------------------------------------------------

def answer_or_refusal(implementation, shape, scheme, slope=0.0):
    """The standard deviation, or the word "ValueError" where one is raised."""
    try:
        return implementation(shape, scheme, slope)
    except ValueError:
        return "ValueError"


def torch_std(shape, scheme, slope=0.0):
    """Read off torch's own draws: from one random state they are a standard normal draw times the wanted number."""
    if len(shape) < 2 or scheme not in ("xavier", "he"):
        return "ValueError"
    weight, standard = torch.empty(2, *shape, dtype=torch.float64)
    nn.init.normal_(standard, generator=torch.Generator().manual_seed(0))
    source = torch.Generator().manual_seed(0)
    if scheme == "xavier":
        nn.init.xavier_normal_(weight, generator=source)
    else:
        nn.init.kaiming_normal_(weight, a=slope, generator=source)
    return float(weight.norm() / standard.norm())


def std_cases(g):
    yield case((4, 3), "xavier", label="xavier, a small matrix")
    yield case((4, 3), "he", label="he, a small matrix")
    yield case((_int(g, 40, 90), _int(g, 5, 30)), "he", label="he, more outputs than inputs")
    yield case((_int(g, 5, 30), _int(g, 40, 90)), "xavier", label="xavier, fewer outputs than inputs")
    yield case((8, 3, 5, 5), "he", label="he, a 5 × 5 convolution")
    yield case((8, 3, 5, 2), "xavier", label="xavier, a 5 × 2 convolution")
    yield case((4, _int(g, 5, 9), 3), "he", label="he, a convolution over text")
    yield case((_int(g, 9, 14), 6, 1, 1), "xavier", label="xavier, a 1 × 1 convolution")
    yield case((1, 1), "he", label="he, a single number")
    yield case([12, 7], "he", 0.2, label="he, a leaky slope of 0.2")
    yield case((6, 9, 3), "he", 1.0, label="he, slope 1: no ReLU at all")
    yield case(torch.Size((10, 4)), "he", slope=5**0.5, label="he, the slope that torch's own layers start with")
    yield case((7, 5), "xavier", 0.5, label="xavier, with a slope")
    yield case((_int(g, 3, 20),), "he", label="a bias")
    yield case((9, 2), "normal", label="a scheme that there isn't")


@only("xavier, a small matrix", "he, a small matrix")
def std_refuses(out, one, call):
    return all(call(*wrong) == "ValueError" for wrong in (((5,), "xavier"), ((), "he"), ((4, 4), "lecun")))


@only("xavier, a small matrix", "he, a small matrix")
def std_direction(out, one, call):
    """Xavier takes the middle of both directions; he looks at what comes in."""
    o, i, *kernel = 11, 5, 2
    if abs(call((o, i, *kernel), "xavier") - call((i, o, *kernel), "xavier")) > 1e-6:
        return "xavier is for both directions: a layer and its mirror image get the same"
    return same(call((o, i, *kernel), "he"), call((3 * o, i, *kernel), "he")) or "he asks for the inputs alone"


@only("xavier, a small matrix", "he, a small matrix")
def std_kernel(out, one, call):
    """A kernel of k places: each output hears k times as many numbers."""
    return all(same(call((7, 4, 3, 3), kind), call((7 * 9, 4 * 9), kind)) for kind in ("xavier", "he"))


@only("xavier, a small matrix", "he, a small matrix")
def std_slope(out, one, call):
    """he with slope 1 is a linear layer, twice the variance a ReLU; xavier has no slope."""
    ratio = call((6, 5), "he") / call((6, 5), "he", 1.0)
    return same(ratio, 2**0.5, rtol=1e-3) and same(call((6, 5), "xavier", 0.7), call((6, 5), "xavier"))


# ---- init_network ---------------------------------------------------------------------------------------------------

def initialised(init, layers, scheme, seed):
    """What `init` makes of a model built from a description; every number in it is 7 before.

    layers: [kind, *sizes] each; ["block", *layers] nests; a kind that ends in "!" is frozen. Tensors only come out.
    """
    import torch
    from torch import nn

    class Bare(nn.Module):
        """A parameter of its own, of two dimensions, that belongs to no known layer."""

        def __init__(self, *shape):
            super().__init__()
            self.scale = nn.Parameter(torch.empty(*shape))

    kinds = {
        "linear": nn.Linear, "unbiased": lambda i, o: nn.Linear(i, o, bias=False), "conv1d": nn.Conv1d,
        "conv2d": nn.Conv2d, "layernorm": nn.LayerNorm, "batchnorm": nn.BatchNorm1d, "embedding": nn.Embedding,
        "plain norm": lambda d: nn.LayerNorm(d, elementwise_affine=False), "bare": Bare, "relu": nn.ReLU,
    }

    def build(kind, *sizes):
        if kind == "block":
            return nn.Sequential(*(build(*layer) for layer in sizes))
        return kinds[kind.rstrip("!")](*sizes).requires_grad_(not kind.endswith("!"))

    model = nn.Sequential(*(build(*layer) for layer in layers))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)
    before, trained = list(model.parameters()), [p.requires_grad for p in model.parameters()]
    returned = init(model, scheme, torch.Generator().manual_seed(seed))
    after = list(model.parameters())
    return {
        "parameters": [p.detach().clone() for p in after],
        "gives back the model": returned is model,
        "the same parameters": len(after) == len(before) and all(a is b for a, b in zip(after, before, strict=True)),
        "requires_grad as before": [p.requires_grad for p in after] == trained,
    }


def torch_initialised(layers, scheme, seed):
    """The same through torch.nn.init."""
    g = torch.Generator().manual_seed(seed)
    fill = {"xavier": nn.init.xavier_normal_, "he": nn.init.kaiming_normal_}[scheme]

    def init(model, scheme, _):
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
                fill(module.weight, generator=g)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, (nn.LayerNorm, nn.BatchNorm1d)) and module.weight is not None:
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
        return model

    return initialised(init, layers, scheme, seed)


def network_cases(g):
    def seed():
        return _int(g, 0, 10_000)

    n = _int(g, 6, 12)
    yield case([["linear", 4, 8]], "he", seed(), label="one layer")
    yield case([["linear", 8, n], ["relu"], ["linear", n, 2]], "xavier", seed(), label="two layers")
    yield case([["linear", 6, 6], ["linear", 6, 6]], "he", seed(), label="two layers of one shape")
    yield case([["unbiased", 5, 9]], "xavier", seed(), label="no bias")
    yield case([["conv2d", 3, 4, 3], ["batchnorm", 4]], "he", seed(), label="a convolution and a BatchNorm")
    yield case([["conv1d", 2, 6, 5]], "xavier", seed(), label="a convolution over text")
    yield case([["embedding", 10, 4], ["block", ["layernorm", 4], ["linear", 4, 7]]], "xavier", seed(),
               label="an embedding, a norm, a nested layer")
    yield case([["plain norm", 4], ["linear", 4, 5], ["bare", 3, 2]], "he", seed(),
               label="a norm without weights, and a bare parameter")
    yield case([["linear!", 4, 6], ["linear", 6, 3]], "he", seed(), label="the first layer is frozen")
    yield case([["block", ["block", ["linear", 3, 6]], ["linear", 6, 3]], ["linear", 3, 9]], "xavier", seed(),
               label="a block in a block")


def _large(call, scheme):
    return call([["linear", 120, 90], ["layernorm", 90], ["linear", 90, 90], ["linear", 90, 90]], scheme, 5)


@only("one layer", "no bias")
def network_sizes(out, one, call):
    weight = _large(call, one.args[1])["parameters"][0]
    wanted = {"xavier": (2 / 210) ** 0.5, "he": (2 / 120) ** 0.5}[one.args[1]]
    return abs(float(weight.std()) / wanted - 1) < 0.05 or f"std {float(weight.std()):.3g}, wanted {wanted:.3g}"


@only("one layer")
def network_biases_and_norms(out, one, call):
    """Biases 0; a norm multiplies by 1 and adds 0."""
    _, bias, gain, shift, _, second, *_ = _large(call, one.args[1])["parameters"]
    return not (bias.any() or shift.any() or second.any()) and bool((gain == 1).all())


@only("one layer")
def network_layers_differ(out, one, call):
    weights = [p for p in _large(call, one.args[1])["parameters"] if p.shape == (90, 90)]
    return not same(*weights) or "two layers got the same numbers"


@only("one layer")
def network_rest_stays(out, one, call):
    *kept, weight, _ = call([["embedding", 6, 3], ["bare", 3, 3], ["linear", 3, 2]], one.args[1], 1)["parameters"]
    return all(bool((p == 7).all()) for p in kept) and not (weight == 7).any()


def network_in_place(out, one, call):
    return out["the same parameters"] and out["requires_grad as before"] and out["gives back the model"]
