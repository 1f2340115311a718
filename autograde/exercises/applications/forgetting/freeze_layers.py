"""`freeze_layers(model, trained)`: Leave only some submodules of a model trainable, and freeze the rest."""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case

exercise = Draft(
    "freeze_layers",
    points=3,
    dtypes=(),
    no_gradient="it decides what is trained, and computes nothing",
    strict=True,
    hints=[
        "Switch everything off first, then some parts on again. Which order is right where two modules share a "
        "parameter?",
        "model.get_submodule(name) is the part itself, so no names have to be compared. Both requires_grad_() and "
        "train() reach all that is inside.",
        "parts = [model.get_submodule(name) for name in trained]; model.requires_grad_(False).eval(); then "
        "part.requires_grad_(True).train() for each; return [p for p in model.parameters() if p.requires_grad].",
    ],
)

PLAIN = [
    ["embed", "Embedding"],
    ["layers.0", "Linear"],
    ["layers.1", "Linear"],
    ["norm", "LayerNorm"],
    ["head", "Linear"],
]
NORMS = [
    ["stem.0", "Linear"],
    ["stem.1", "BatchNorm1d"],
    ["top.0", "Linear"],
    ["top.1", "BatchNorm1d"],
    ["top.2", "Dropout"],
]
MANY = [["embed", "Embedding"], *[[f"layers.{i}", "Linear"] for i in range(12)], ["head", "Linear"]]
TIED = [["embed", "Embedding"], ["layers.0", "Linear"], ["head", "Embedding"]]
DEEP = [[f"blocks.{i}.{part}", kind] for i in range(3) for part, kind in (("attn.q", "Linear"), ("norm", "LayerNorm"))]


@exercise.cases
def models(g):
    def some(names, count):
        return [names[i] for i in torch.randperm(len(names), generator=g)[:count].tolist()]

    yield case(PLAIN, ["layers.1", "head"], label="the upper part")
    yield case(PLAIN, ["head", "layers.0"], label="named in another order than the model has")
    yield case(MANY, ["layers.1", "head"], label="twelve layers, of which one is layers.1")
    yield case(NORMS, ["top"], label="normalization with running statistics, and dropout")
    yield case(NORMS, ["stem.1"], label="only a normalization")
    for trained, label in (
        (["head"], "head and embedding share a matrix"),
        (["embed"], "head and embedding share a matrix, the embedding is named"),
        (["embed", "head"], "two names for one parameter, both trained"),
        (["layers.0"], "a shared matrix that is frozen"),
    ):
        yield case(TIED, trained, ties=[["head.weight", "embed.weight"]], label=label)
    yield case(PLAIN, ["norm", "head"], off=["head.weight", "layers.0.bias"], label="some of it was frozen before")
    yield case(DEEP, ["blocks.2", "blocks.0.norm"], label="parts within parts")
    yield case(DEEP, ["blocks.1.attn"], mode=False, label="a model in eval mode")
    yield case(PLAIN, [""], mode=False, label="the whole model")
    yield case(PLAIN, [], label="nothing at all")
    yield case(PLAIN, ["head", "classifier"], label="a name that isn't there")
    yield case(MANY, some([name for name, _ in MANY], 4), label="four parts of many")


@exercise.probe
def frozen(freeze_layers, parts, trained, ties=(), off=(), mode=True):
    """What `freeze_layers` does to a model of these parts: what is trainable, in which mode, and what it returns.

    parts: pairs of a dotted name and a kind of module. ties: pairs of names of parameters, the first of which becomes
    the second. off: parameters that are frozen already. mode: whether the model is in train mode.
    """
    from torch import nn

    made = {"Linear": (2, 2), "Embedding": (3, 2), "LayerNorm": (2,), "BatchNorm1d": (2,), "Dropout": (0.5,)}
    model = nn.Module()
    for name, kind in parts:
        *folders, last = name.split(".")
        home = model
        for folder in folders:
            if not hasattr(home, folder):
                home.add_module(folder, nn.Module())
            home = getattr(home, folder)
        home.add_module(last, getattr(nn, kind)(*made[kind]))
    for name, other in ties:
        path, last = name.rsplit(".", 1)
        setattr(model.get_submodule(path), last, model.get_parameter(other))
    for name in off:
        model.get_parameter(name).requires_grad_(False)
    model.train(mode)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    try:
        returned = freeze_layers(model, list(trained))
    except AttributeError:
        return "AttributeError"
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        "trainable": {name: p.requires_grad for name, p in model.named_parameters(remove_duplicate=False)},
        "train mode": {name: model.get_submodule(name).training for name, _ in parts},
        "returned": [names.get(id(p), "no parameter of the model") for p in returned]
        if isinstance(returned, (list, tuple))
        else "no list",
        "values kept": all(bool((p == before[name]).all()) for name, p in model.named_parameters()),
    }


def _freeze(
    parts=lambda model, trained: [model.get_submodule(name) for name in trained],
    off=lambda model: model.requires_grad_(False),
    on=lambda part: part.requires_grad_(True),
    modes=(lambda model: model.eval(), lambda part: part.train()),
    given=lambda model, parts: [p for p in model.parameters() if p.requires_grad],
):
    """`freeze_layers` from its parts, in torch's own words."""

    def freeze_layers(model, trained):
        chosen = parts(model, trained)
        off(model)
        modes[0](model)
        for part in chosen:
            on(part)
            modes[1](part)
        return given(model, chosen)

    return freeze_layers


right = _freeze()


@exercise.oracle
def torchs_own(parts, trained, ties=(), off=(), mode=True):
    return frozen(right, parts, trained, ties, off, mode)


def _by_name(belongs):
    """Parameters chosen by their names; the modes as they should be."""

    def freeze_layers(model, trained):
        model.requires_grad_(False).eval()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(any(belongs(name, one) for one in trained))
        for name, module in model.named_modules():
            if any(belongs(f"{name}.", one) for one in trained):
                module.train()
        return [p for p in model.parameters() if p.requires_grad]

    return freeze_layers


exercise.mistake(
    "names are compared without the dot behind them, so that layers.1 takes layers.10 along",
    hint='"layers.10".startswith("layers.1"). Take the module itself: model.get_submodule(name).',
)(
    lambda model, trained: (
        right(model, trained),
        _freeze(lambda m, _: [part for n, part in m.named_modules() if any(n.startswith(t) for t in trained)])(
            model, ()
        ),
    )[1]
)


@exercise.mistake(
    "a parameter that two modules share is known under one name only",
    hint="named_parameters() lists a tied matrix once, under its first name. Ask the modules for their parameters.",
)
def first_name(model, trained):
    parts = [model.get_submodule(name) for name in trained]
    model.requires_grad_(False).eval()
    for part in parts:
        part.train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(one == "" or name.startswith(f"{one}.") for one in trained))
    return [p for p in model.parameters() if p.requires_grad]


@exercise.mistake(
    "what is shared with a frozen module is frozen", hint="Freeze everything first, then switch the trained parts on."
)
def frozen_last(model, trained):
    kept = right(model, trained)
    inside = {id(p) for name in trained for p in model.get_submodule(name).parameters()}
    for name, module in model.named_modules():
        taken = any(one == "" or f"{name}.".startswith(f"{one}.") for one in trained)
        if not taken and not any(one.startswith(f"{name}." if name else "") for one in trained):
            module.requires_grad_(False)
    return [p for p in kept if p.requires_grad and id(p) in inside]


exercise.mistake("what was frozen before stays frozen", hint="requires_grad_(True) on the trained parts, always.")(
    _freeze(
        off=lambda model: [
            p.requires_grad_(False) if not p.requires_grad else setattr(p, "was_on", True) or p.requires_grad_(False)
            for p in model.parameters()
        ],
        on=lambda part: [p.requires_grad_(getattr(p, "was_on", False)) for p in part.parameters()],
    )
)
exercise.mistake("an empty list trains the whole model", hint="[] is nothing: then nothing is trained.")(
    _freeze(parts=lambda model, trained: [model.get_submodule(name) for name in trained or [""]])
)
exercise.mistake("a generator comes back", hint="A list: a generator is used up once the optimizer has read it.")(
    _freeze(given=lambda model, parts: (p for p in model.parameters() if p.requires_grad))
)
exercise.mistake("nothing is frozen", hint="requires_grad_(False) on the whole model, first.")(
    _freeze(off=lambda model: None, given=lambda model, parts: [p for part in parts for p in part.parameters()])
)
exercise.mistake("the named parts are frozen and the others trained", hint="`trained` names what is trained.")(
    _freeze(
        off=lambda model: model.requires_grad_(True),
        on=lambda part: part.requires_grad_(False),
        modes=(lambda model: model.train(), lambda part: part.eval()),
    )
)
exercise.mistake(
    "frozen normalization goes on counting: its module stays in train mode",
    hint="Running statistics aren't parameters. They stand still in eval mode only: model.eval(), then part.train().",
)(_freeze(modes=(lambda model: None, lambda part: part.train())))
exercise.mistake("modes are left as they were", hint="model.eval(), then part.train() for each trained part.")(
    _freeze(modes=(lambda model: None, lambda part: None))
)
exercise.mistake("the whole model is in eval mode, the trained parts too", hint="part.train() for each trained part.")(
    _freeze(modes=(lambda model: model.eval(), lambda part: None))
)
exercise.mistake("the whole model is in train mode, the frozen parts too", hint="model.eval() first.")(
    _freeze(modes=(lambda model: model.train(), lambda part: None))
)
exercise.mistake("all parameters come back, the frozen ones too", hint="Only those that are trained.")(
    _freeze(given=lambda model, parts: list(model.parameters()))
)
exercise.mistake("the frozen parameters come back", hint="Those that are trained: the optimizer gets them.")(
    _freeze(given=lambda model, parts: [p for p in model.parameters() if not p.requires_grad])
)
exercise.mistake(
    "parameters come back part by part, in the order of the names, a shared one twice",
    hint="In the order of model.parameters(), which gives each once.",
)(_freeze(given=lambda model, parts: [p for part in parts for p in part.parameters()]))
exercise.mistake("the last of the named parts alone is trained", hint="Freeze once, before the loop, not inside it.")(
    _freeze(parts=lambda model, trained: [model.get_submodule(name) for name in trained][-1:])
)
exercise.mistake("the first of the named parts alone is trained", hint="All of them: a loop over the names.")(
    _freeze(parts=lambda model, trained: [model.get_submodule(name) for name in trained][:1])
)
exercise.mistake(
    "what lies deeper inside a named part stays frozen", hint="part.parameters() reaches all that is inside."
)(_freeze(on=lambda part: [p.requires_grad_(True) for p in part.parameters(recurse=False)]))
exercise.mistake("biases stay frozen", hint="All parameters of a part, whatever they are called.")(
    _freeze(on=lambda part: [p.requires_grad_(True) for n, p in part.named_parameters() if not n.endswith("bias")])
)
exercise.mistake(
    "a name that isn't there is passed over in silence",
    hint="A slip in a name would freeze everything. model.get_submodule(name) raises AttributeError.",
)(
    _freeze(
        parts=lambda model, trained: [
            dict(model.named_modules())[n] for n in trained if n in dict(model.named_modules())
        ]
    )
)
exercise.mistake(
    'the empty name is passed over: "" trains nothing', hint='model.get_submodule("") is the whole model.'
)(_freeze(parts=lambda model, trained: [model.get_submodule(name) for name in trained if name]))
exercise.mistake("all layers are trained above the lowest one that is named", hint="The named parts, and no others.")(
    _freeze(
        parts=lambda model, trained: [
            *(model.get_submodule(name) for name in trained),
            *list(model.modules())[min((list(dict(model.named_modules())).index(n) for n in trained), default=99) :],
        ]
    )
)


@exercise.alternative
def by_identity(model, trained):
    inside = {id(p) for name in trained for p in model.get_submodule(name).parameters()}
    modules = {m for name in trained for m in model.get_submodule(name).modules()}
    for module in model.modules():
        module.training = module in modules
    for parameter in model.parameters():
        parameter.requires_grad = id(parameter) in inside
    return tuple(p for p in model.parameters() if id(p) in inside)


exercise.alternative(right)
