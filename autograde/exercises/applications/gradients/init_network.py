"""`init_network(model, scheme, generator)`: Give a model new weights, in place."""

from __future__ import annotations

import torch
from torch import nn

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.gradients.shared import right_std
from autograde.exercises.shared import integer, only

exercise = Draft(
    "init_network",
    points=3,
    forbid=["torch.nn.init.xavier_normal_", "torch.nn.init.kaiming_normal_"],
    no_gradient="weights are drawn before training begins",
    hints=[
        "A model is a tree of modules. What do you have to do with each kind of leaf?",
        "for module in model.modules(): isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)) is one kind, "
        "(nn.LayerNorm, nn.BatchNorm1d) the other. Weight and bias can be None. Work under torch.no_grad().",
        "module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * init_std(module.weight.shape, "
        "scheme)); module.bias.zero_(). For norms weight.fill_(1) and bias.zero_(). return model",
    ],
)


@exercise.cases
def network_cases(g):
    def seed():
        return integer(g, 0, 10_000)

    n = integer(g, 6, 12)
    yield case([["linear", 4, 8]], "he", seed(), label="one layer")
    yield case([["linear", 8, n], ["relu"], ["linear", n, 1]], "xavier", seed(), label="two layers, one output")
    yield case([["linear", 6, 6], ["linear", 6, 6]], "he", seed(), label="two layers of one shape")
    yield case([["unbiased", 5, 9]], "xavier", seed(), label="no bias")
    yield case([["conv2d", 3, 4, 3], ["batchnorm", 4]], "he", seed(), label="a convolution and a BatchNorm")
    yield case([["conv1d", 2, 6, 5]], "xavier", seed(), label="a convolution over text")
    yield case(
        [["embedding", 10, 4], ["block", ["layernorm", 4], ["linear", 4, 7]]],
        "xavier",
        seed(),
        label="an embedding, a norm, a nested layer",
    )
    yield case(
        [["plain norm", 4], ["linear", 4, 5], ["bare", 3, 2]],
        "he",
        seed(),
        label="a norm without weights, and a bare parameter",
    )
    yield case([["linear!", 4, 6], ["linear", 6, 3]], "he", seed(), label="the first layer is frozen")
    yield case(
        [["block", ["block", ["linear", 3, 6]], ["linear", 6, 3]], ["linear", 3, 9]],
        "xavier",
        seed(),
        label="a block in a block",
    )


def initialized(init, layers, scheme, seed):
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
        "linear": nn.Linear,
        "unbiased": lambda i, o: nn.Linear(i, o, bias=False),
        "conv1d": nn.Conv1d,
        "conv2d": nn.Conv2d,
        "layernorm": nn.LayerNorm,
        "batchnorm": nn.BatchNorm1d,
        "embedding": nn.Embedding,
        "plain norm": lambda d: nn.LayerNorm(d, elementwise_affine=False),
        "bare": Bare,
        "relu": nn.ReLU,
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


@exercise.oracle
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

    return initialized(init, layers, scheme, seed)


exercise.probe(initialized)


def _large(call, scheme):
    return call([["linear", 120, 90], ["layernorm", 90], ["linear", 90, 90], ["linear", 90, 90]], scheme, 5)


@exercise.law("Weights are as large as their shape asks for")
@only("one layer", "no bias")
def network_sizes(out, one, call):
    weight = _large(call, one.args[1])["parameters"][0]
    wanted = {"xavier": (2 / 210) ** 0.5, "he": (2 / 120) ** 0.5}[one.args[1]]
    return abs(float(weight.std()) / wanted - 1) < 0.05 or f"std {float(weight.std()):.3g}, wanted {wanted:.3g}"


@exercise.law("Biases start at 0; norms multiply by 1 and add 0")
@only("one layer")
def network_biases_and_norms(out, one, call):
    """Biases 0; a norm multiplies by 1 and adds 0."""
    _, bias, gain, shift, _, second, *_ = _large(call, one.args[1])["parameters"]
    return not (bias.any() or shift.any() or second.any()) and bool((gain == 1).all())


@exercise.law("No two layers get the same numbers")
@only("one layer")
def network_layers_differ(out, one, call):
    weights = [p for p in _large(call, one.args[1])["parameters"] if p.shape == (90, 90)]
    return not same(*weights) or "two layers got the same numbers"


@exercise.law("Embeddings and bare parameters are left alone")
@only("one layer")
def network_rest_stays(out, one, call):
    *kept, weight, _ = call([["embedding", 6, 3], ["bare", 3, 3], ["linear", 3, 2]], one.args[1], 1)["parameters"]
    return all(bool((p == 7).all()) for p in kept) and not (weight == 7).any()


@exercise.law("It is the same model with the same parameters, frozen or not as before")
def network_in_place(out, one, call):
    return out["the same parameters"] and out["requires_grad as before"] and out["gives back the model"]


_DRAWN, _NORMS = (nn.Linear, nn.Conv1d, nn.Conv2d), (nn.LayerNorm, nn.BatchNorm1d)


def _draw(weight, scheme, g):
    return torch.randn(weight.shape, generator=g, dtype=weight.dtype) * right_std(weight.shape, scheme)


def _zero(bias, scheme, g):
    return torch.zeros_like(bias)


def _network(
    draw=_draw,
    bias=_zero,
    gain=1.0,
    drawn=_DRAWN,
    norms=_NORMS,
    among=nn.Module.modules,
    returns=True,
    takes=lambda module: True,
):
    """An `init_network` with some of its parts exchanged."""

    @torch.no_grad()
    def init_network(model, scheme, generator):
        for module in among(model):
            weight, shift = getattr(module, "weight", None), getattr(module, "bias", None)
            if isinstance(module, drawn) and takes(module):
                weight.copy_(draw(weight, scheme, generator))
            elif isinstance(module, norms) and weight is not None:
                weight.fill_(gain)
            else:
                continue
            if shift is not None:
                shift.copy_(bias(shift, scheme, generator))
        return model if returns else None

    return init_network


exercise.mistake(
    "every weight gets a standard deviation of 0.02",
    hint="BERT's habit, made for one width. Here init_std(weight.shape, scheme) tells how large.",
)(_network(lambda w, scheme, g: torch.randn(w.shape, generator=g) * 0.02))

exercise.mistake(
    "weights are drawn with a standard deviation of 1", hint="Multiply the draw by init_std(weight.shape, scheme)."
)(_network(lambda w, scheme, g: torch.randn(w.shape, generator=g)))

exercise.mistake(
    "all weights are zero", hint="Then all units of a layer stay alike for ever. Weights are drawn by chance."
)(_network(lambda w, scheme, g: torch.zeros_like(w)))

exercise.mistake("the draw is multiplied by the variance", hint="By the standard deviation, its root.")(
    _network(lambda w, scheme, g: torch.randn(w.shape, generator=g) * right_std(w.shape, scheme) ** 2)
)

exercise.mistake("the scheme is always he", hint="It is a parameter: pass it on.")(
    _network(lambda w, scheme, g: _draw(w, "he", g))
)


def _first_again(weight, scheme, g):
    return _draw(weight, scheme, g.manual_seed(0))


exercise.mistake(
    "the generator is seeded again for every layer",
    hint="Layers of one shape would get the same numbers. One generator, which moves on.",
)(_network(_first_again))


def _from_the_global_state(weight, scheme, g):
    return torch.randn(weight.shape) * right_std(weight.shape, scheme)


exercise.mistake(
    "the generator isn't used", hint="torch.randn(…, generator=generator): only then can a run be repeated."
)(_network(_from_the_global_state))


def _uniform(weight, scheme, g):
    return (2 * torch.rand(weight.shape, generator=g) - 1) * 3**0.5 * right_std(weight.shape, scheme)


exercise.mistake(
    "a uniform distribution is drawn from", hint="The right size, but the task asks for a normal distribution."
)(_network(_uniform))


def _of_the_transpose(weight, scheme, g):
    turned = weight.transpose(0, 1)
    return (torch.randn(weight.shape, generator=g)) * right_std(turned.shape, scheme)


exercise.mistake(
    "the fans are read off the transposed weight", hint="The shape as torch stores it: init_std(weight.shape, scheme)."
)(_network(_of_the_transpose))

exercise.mistake("biases stay as they were", hint="Biases start at zero.")(_network(bias=lambda b, scheme, g: b))


def _small(bias, scheme, g):
    return torch.randn(bias.shape, generator=g) * 0.01


exercise.mistake("biases are drawn as well", hint="Biases start at zero.")(_network(bias=_small))

exercise.mistake(
    "only the model's direct children are reached",
    hint="Layers stand in blocks within blocks: model.modules() reaches all of them.",
)(_network(among=nn.Module.children))

exercise.mistake("convolutions are forgotten", hint="nn.Conv1d and nn.Conv2d have weights of the same kind.")(
    _network(drawn=nn.Linear)
)

exercise.mistake("norms stay as they were", hint="LayerNorm and BatchNorm1d start as the identity: weight 1, bias 0.")(
    _network(norms=())
)

exercise.mistake("norms start with a weight of 0", hint="Then nothing gets through. Weight 1, bias 0.")(
    _network(gain=0.0)
)

exercise.mistake(
    "embeddings are drawn, too", hint="A row is looked up, nothing is added: an embedding has no fan-in. Leave it."
)(_network(drawn=(*_DRAWN, nn.Embedding)))


@exercise.mistake(
    "parameters are chosen by their shape, not by their layer",
    hint="An embedding has two dimensions, too, and a norm's weight isn't a bias. Ask for the layer.",
)
def network_every_matrix(model, scheme, generator):
    """By shape, not by kind: every parameter of two or more dimensions is drawn, every other becomes zero."""
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(_draw(p, scheme, generator) if p.dim() > 1 else torch.zeros_like(p))
    return model


right_network = _network()


@exercise.mistake(
    "weights are replaced by new Parameters",
    hint="An optimizer made before would go on training the old ones. Fill them in place.",
)
def network_replaced(model, scheme, generator):
    """The right numbers in new Parameters: an optimizer that was made before keeps the old ones."""
    right_network(model, scheme, generator)
    for module in model.modules():
        if isinstance(module, _DRAWN):
            module.weight = nn.Parameter(module.weight.detach().clone(), requires_grad=module.weight.requires_grad)
    return model


exercise.mistake(
    "frozen layers are skipped", hint="A frozen layer needs a beginning, too. Only requires_grad stays as it was."
)(_network(takes=lambda module: module.weight.requires_grad))


@exercise.mistake("frozen layers are trained afterwards", hint="requires_grad stays as it was.")
def network_thawed(model, scheme, generator):
    return right_network(model, scheme, generator).requires_grad_(True)


exercise.mistake("nothing is returned", hint="Return the model.")(_network(returns=False))

exercise.alternative(right_network)


@exercise.alternative
def network_by_apply(model, scheme, generator):
    """By hand and by `.data`, in the order of names."""
    for name, module in model.named_modules():
        kind = type(module).__name__
        if kind in ("Linear", "Conv1d", "Conv2d"):
            noise = torch.empty_like(module.weight.data).normal_(generator=generator)
            module.weight.data = noise.mul_(right_std(module.weight.shape, scheme))
            if module.bias is not None:
                module.bias.data[:] = 0
        elif "Norm" in kind and module.weight is not None:
            module.weight.data.fill_(1)
            module.bias.data.zero_()
        assert name is not None
    return model
