"""`LoRALinear`: A frozen linear layer and beside it an update of low rank, which alone is trained."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils import parametrize

from autograde.exercise import Draft, case
from autograde.exercises.shared import randn

exercise = Draft(
    "LoRALinear",
    points=5,
    no_gradient="the gradients are among the results",
    forbid=["peft"],
    hints=[
        "Two roads from x to the output. One is the old layer, which nobody may change any more; the other goes "
        "through r numbers. Which of the two new matrices has to be zero, so that nothing is lost at the start?",
        "self.A = nn.Parameter([r, in]), self.B = nn.Parameter(zeros [out, r]); forward: linear(x) + alpha / r * "
        "(x @ A.T) @ B.T. Merging adds alpha / r * B @ A to a *copy* of the weight.",
        "linear.requires_grad_(False); dtype = torch.float64 if linear.weight.dtype == torch.float64 else "
        "torch.float32; A = torch.empty(r, linear.in_features, dtype=dtype).uniform_(-b, b) with b = "
        "linear.in_features ** -0.5; "
        "merged = copy.deepcopy(linear); merged.weight.copy_(merged.weight.to(dtype) + scale * B @ A), under no_grad.",
    ],
)


@exercise.cases
def layers(g):
    def one(n, m, r, alpha, *shape, label, bias=True, size=1.0):
        return case(
            randn(g, m, n) * n**-0.5,
            randn(g, m) if bias else None,
            r,
            alpha,
            randn(g, r, n) * n**-0.5,
            randn(g, m, r) * size,
            randn(g, *shape, n),
            label=label,
        )

    yield one(6, 4, 2, 8, 5, label="six to four, rank 2")
    yield one(5, 7, 3, 1.5, 2, 3, label="a batch, alpha below r", bias=False)
    yield one(4, 3, 1, 1, 2, label="rank 1")
    yield one(5, 5, 4, 16, 3, label="square")
    yield one(3, 4, 6, 2, 2, label="a rank above both sizes")
    yield one(4, 5, 2, 4, label="a single vector")
    yield one(6, 3, 2, 6, 2, 2, 3, label="three batch dimensions", bias=False)
    yield one(160, 24, 8, 32, 3, label="wide", size=0.1)
    double = one(6, 5, 2, 3, 4, label="")
    yield case(*(x.double() if isinstance(x, torch.Tensor) else x for x in double.args), label="float64")


def work_with(lora, weight, bias, r, alpha, A, B, x):
    """What a layer says at the start, with given matrices, through which gradients, and what it is when merged."""
    import torch
    from torch import nn

    m, n = weight.shape
    linear = nn.Linear(n, m, bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        linear.weight.copy_(weight)
        if bias is not None:
            linear.bias.copy_(bias)
    layer = lora(linear, r, alpha)
    first, bound = layer.A.detach().clone(), n**-0.5
    other = lora(nn.Linear(n, m, dtype=weight.dtype), r, alpha)
    many = first.numel() > 1000
    told = {
        "trained": sorted(name for name, p in layer.named_parameters() if p.requires_grad),
        "shapes": [list(layer.A.shape), list(layer.B.shape)],
        "dtypes": [str(layer.A.dtype), str(layer.B.dtype)],
        "A is drawn within its bounds": not many or bool((first.abs() <= bound * 1.001).all()),
        "A's spread": round(float(first.std()) / bound * 3**0.5, 1) if many else 1.0,
        "A is drawn for each layer": bool((first != other.A).any()),
        "B is zero": not bool(layer.B.any()),
        "start": layer(x).detach(),
    }
    with torch.no_grad():
        layer.A.copy_(A)
        layer.B.copy_(B)
    x = x.clone().requires_grad_()
    out = layer(x)
    weighing = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape)
    (out * weighing).sum().backward()
    told |= {"output": out.detach(), "dtype": str(out.dtype)}
    for name, tensor in (("A", layer.A), ("B", layer.B), ("x", x)):
        told[f"gradient of {name}"] = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
    told["old weights get a gradient"] = any(p.grad is not None for p in linear.parameters())
    merged = layer.merged()
    told |= {
        "merged weight": merged.weight.detach().clone(),
        "merged bias": None if merged.bias is None else merged.bias.detach().clone(),
        "merged dtype": str(merged.weight.dtype),
        "merged is a plain layer": type(merged) is nn.Linear,
        "merged output": merged(x.detach()).detach(),
    }
    with torch.no_grad():
        for p in merged.parameters():
            p.zero_()
    told["output after merging"] = layer(x.detach()).detach()
    told["merged again"] = layer.merged().weight.detach().clone()
    told["the layer that was given"] = linear.weight.detach().clone()
    told["the layer that was given is frozen"] = not any(p.requires_grad for p in linear.parameters())
    told["output in eval mode"] = layer.eval()(x.detach()).detach()
    with torch.no_grad():
        linear.weight.zero_()
    told["the layer that was given is the one in use"] = bool((layer(x.detach()) != told["output"]).any())
    return told


exercise.probe(work_with)


class _Plus(nn.Module):
    """torch's own way to have a weight that is made of others."""

    def __init__(self, A, B, scale):
        super().__init__()
        self.A, self.B, self.scale = nn.Parameter(A), nn.Parameter(B), scale

    def forward(self, weight):
        return weight + self.scale * self.B @ self.A


@exercise.oracle
def parametrized(weight, bias, r, alpha, A, B, x):
    """torch's parametrization of one nn.Linear: its weight *is* W + alpha / r * BA, in float64 and by autograd."""
    dtype = x.dtype
    small = torch.float64 if dtype == torch.float64 else torch.float32
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(weight)
        if bias is not None:
            linear.bias.copy_(bias)
    linear.requires_grad_(False)
    start = linear(x.double())
    plus = _Plus(A.double(), B.double(), alpha / r)
    x = x.double().requires_grad_()
    with torch.enable_grad():
        parametrize.register_parametrization(linear, "weight", plus)
        out = linear(x)
        (out * torch.linspace(-1, 2, out.numel(), dtype=dtype).double().reshape(out.shape)).sum().backward()
    merged, out = linear.weight.detach().to(dtype), out.detach().to(dtype)
    return {
        "trained": ["A", "B"],
        "shapes": [list(A.shape), list(B.shape)],
        "dtypes": [str(small)] * 2,
        "A is drawn within its bounds": True,
        "A's spread": 1.0,
        "A is drawn for each layer": True,
        "B is zero": True,
        "start": start.to(dtype),
        "output": out,
        "dtype": str(dtype),
        "gradient of A": plus.A.grad.to(small),
        "gradient of B": plus.B.grad.to(small),
        "gradient of x": x.grad.to(dtype),
        "old weights get a gradient": False,
        "merged weight": merged,
        "merged bias": bias,
        "merged dtype": str(dtype),
        "merged is a plain layer": True,
        "merged output": out,
        "output after merging": out,
        "merged again": merged,
        "the layer that was given": weight,
        "the layer that was given is frozen": True,
        "output in eval mode": out,
        "the layer that was given is the one in use": True,
    }


@exercise.law("Before training the layer says what the old one said", essential=True)
def nothing_lost(out, one, call):
    weight, bias, _, _, _, _, x = one.args
    wanted = torch.nn.functional.linear(x, weight, bias)
    return bool(torch.allclose(out["start"], wanted, rtol=1e-3, atol=1e-3)) if not one.made else None


@exercise.law("Only A and B are trained", essential=True)
def two_are_trained(out, one, call):
    return out["trained"] == ["A", "B"] and not out["old weights get a gradient"]


@exercise.law("Merged, it says the same")
def merged_says_the_same(out, one, call):
    if one.made:
        return None
    return bool(torch.allclose(out["merged output"], out["output"], rtol=1e-3, atol=1e-4))


@exercise.law("Merging leaves the layer and the old weights as they are")
def merging_is_harmless(out, one, call):
    if one.made:
        return None
    same = torch.equal(out["the layer that was given"], one.args[0]) and torch.equal(
        out["merged again"], out["merged weight"]
    )
    return same and bool(torch.allclose(out["output after merging"], out["output"], rtol=1e-5, atol=1e-5))


@exercise.law("alpha and r count as a quotient: twice both is the same layer")
def quotient(out, one, call):
    weight, bias, r, alpha, A, B, x = one.args
    if one.made:
        return None
    zeros = torch.zeros_like(A), torch.zeros_like(B)
    wide = call(weight, bias, 2 * r, 2 * alpha, torch.cat([A, zeros[0]]), torch.cat([B, zeros[1]], 1), x)
    return bool(torch.allclose(wide["output"], out["output"], rtol=1e-4, atol=1e-4))


@exercise.law("Beside a bfloat16 layer, the update and the sum of the weights are reckoned in float32")
def reckoned_wide(out, one, call):
    if one.label != "rank 1":
        return None
    A, B = torch.tensor([[1 + 2**-10, -1.0]]), torch.tensor([[1024.0], [512.0]])
    x, old = torch.ones(1, 2).bfloat16(), torch.zeros(2, 2).bfloat16()
    if call(old, None, 1, 1, A, B, x)["output"].tolist() != [[1.0, 0.5]]:
        return "the update loses digits"
    old[0, 0] = -1024.0
    return float(call(old, None, 1, 1, A, B, x)["merged weight"][0, 0]) == 1.0 or "merging loses digits"


@exercise.alternative
class LoRA(nn.Module):
    """LoRA, right; what the mistakes below change is each a method."""

    def __init__(self, linear, r, alpha):
        super().__init__()
        self.linear, self.r, self.alpha = linear, r, alpha
        self.freeze()
        dtype = self.small(linear.weight.dtype)
        self.A = nn.Parameter(self.first_A(torch.empty(r, linear.in_features, dtype=dtype)))
        self.B = nn.Parameter(self.first_B(torch.zeros(linear.out_features, r, dtype=dtype)))

    def freeze(self):
        self.linear.requires_grad_(False)

    def small(self, dtype):
        return torch.float64 if dtype == torch.float64 else torch.float32

    def first_A(self, A):
        return nn.init.kaiming_uniform_(A, a=5**0.5)

    def first_B(self, B):
        return B

    def scale(self):
        return self.alpha / self.r

    def merged_scale(self):
        return self.scale()

    def base(self, x):
        return self.linear(x)

    def update(self, x):
        return self.scale() * ((x.to(self.A.dtype) @ self.A.T) @ self.B.T)

    def forward(self, x):
        return (self.base(x) + self.update(x)).to(x.dtype)

    @torch.no_grad()
    def merged(self):
        merged = copy.deepcopy(self.linear)
        old = merged.weight.to(self.A.dtype)
        merged.weight.copy_(self.together(old, self.merged_scale() * self.B @ self.A))
        return merged

    def together(self, old, update):
        return old + update


@exercise.mistake("alpha isn't divided by r", hint="The scale is alpha / r: a larger rank is not a larger step.")
class NotDivided(LoRA):
    def scale(self):
        return self.alpha


@exercise.mistake("alpha is divided by the root of r", hint="That is rsLoRA. Here: alpha / r.")
class ByRoot(LoRA):
    def scale(self):
        return self.alpha / self.r**0.5


@exercise.mistake(
    "the update is reckoned in the dtype of x", hint="In A's dtype, and rounded at the end: x.to(A.dtype)."
)
class NarrowUpdate(LoRA):
    def update(self, x):
        return self.scale() * ((x @ self.A.to(x.dtype).T) @ self.B.to(x.dtype).T)


@exercise.mistake("the update is rounded before it is merged", hint="Add in A's dtype, then round once.")
class MergedNarrow(LoRA):
    @torch.no_grad()
    def merged(self):
        merged = copy.deepcopy(self.linear)
        merged.weight += (self.scale() * self.B @ self.A).to(merged.weight.dtype)
        return merged


@exercise.mistake("alpha / r is rounded down", hint="alpha / r, not alpha // r.")
class Floored(LoRA):
    def scale(self):
        return self.alpha // self.r


@exercise.mistake("a copy of the layer is frozen and used", hint="The layer itself: in the model it stands as it is.")
class Copying(LoRA):
    def __init__(self, linear, r, alpha):
        super().__init__(copy.deepcopy(linear), r, alpha)


@exercise.mistake("in eval mode the update is left out", hint="What was learned is said in both modes.")
class OnlyInTraining(LoRA):
    def update(self, x):
        return super().update(x) * self.training


@exercise.mistake("there is no scale", hint="alpha / r times the update.")
class Unscaled(LoRA):
    def scale(self):
        return 1.0


@exercise.mistake("the scale is r / alpha", hint="alpha / r.")
class Inverse(LoRA):
    def scale(self):
        return self.r / self.alpha


@exercise.mistake("B is drawn at random, too", hint="Then the model is another one before it has learnt anything.")
class RandomB(LoRA):
    def first_B(self, B):
        return B.uniform_(-0.5, 0.5)


@exercise.mistake(
    "A is zero, too: nothing will ever learn",
    hint="The gradient of B has A in it, and that of A has B: one of the two must not be 0.",
)
class ZeroA(LoRA):
    def first_A(self, A):
        return A.zero_()


@exercise.mistake("B is drawn and A is zero", hint="The other way round: A is drawn, B is zero.")
class Swapped(LoRA):
    def first_A(self, A):
        return A.zero_()

    def first_B(self, B):
        return B.uniform_(-0.5, 0.5)


@exercise.mistake("A is drawn from a standard normal", hint="Evenly between -1 / sqrt(in) and 1 / sqrt(in).")
class NormalA(LoRA):
    def first_A(self, A):
        return A.normal_()


@exercise.mistake("A's bound is 1 / sqrt(r), not 1 / sqrt(in)", hint="A sums over the inputs: in_features.")
class BoundOfRank(LoRA):
    def first_A(self, A):
        return A.uniform_(-(self.r**-0.5), self.r**-0.5)


@exercise.mistake("A is the same in every layer", hint="Drawn, not made: each layer has its own.")
class SameA(LoRA):
    def first_A(self, A):
        bound = A.shape[1] ** -0.5
        return torch.linspace(-bound, bound, A.numel(), dtype=A.dtype).reshape(A.shape)


@exercise.mistake("the old layer goes on learning", hint="linear.requires_grad_(False).")
class NotFrozen(LoRA):
    def freeze(self):
        pass


@exercise.mistake("the old bias goes on learning", hint="All of the old layer is frozen, its bias as well.")
class BiasLearns(LoRA):
    def freeze(self):
        self.linear.weight.requires_grad_(False)


@exercise.mistake("A isn't trained", hint="Both A and B are nn.Parameter. (LoRA-FA freezes A; here it isn't.)")
class FrozenA(LoRA):
    def __init__(self, linear, r, alpha):
        super().__init__(linear, r, alpha)
        self.A.requires_grad_(False)


@exercise.mistake("only the update is returned", hint="linear(x) + update.")
class UpdateAlone(LoRA):
    def base(self, x):
        return torch.zeros_like(self.linear(x))


@exercise.mistake("the bias is left out", hint="The old layer says what it said: weight and bias.")
class NoBias(LoRA):
    def base(self, x):
        return x @ self.linear.weight.T


@exercise.mistake(
    "gradients don't pass through the old layer",
    hint="Its weights are frozen, but what stands below it learns: no torch.no_grad() around linear(x).",
)
class CutBelow(LoRA):
    def base(self, x):
        with torch.no_grad():
            return self.linear(x)


@exercise.mistake("gradients don't pass below the update", hint="x isn't detached: layers below learn as well.")
class CutUpdate(LoRA):
    def update(self, x):
        return super().update(x.detach())


@exercise.mistake("merging forgets the scale", hint="W + alpha / r * B @ A, as in the forward pass.")
class MergedUnscaled(LoRA):
    def merged_scale(self):
        return 1.0


@exercise.mistake("merging subtracts the update", hint="W + alpha / r * B @ A.")
class MergedWithMinus(LoRA):
    def together(self, old, update):
        return old - update


@exercise.mistake("merging gives only the update", hint="The old weight is part of it.")
class MergedUpdate(LoRA):
    def together(self, old, update):
        return update


@exercise.mistake("merging changes the old layer itself", hint="A new layer: copy.deepcopy(self.linear).")
class MergedInPlace(LoRA):
    @torch.no_grad()
    def merged(self):
        self.linear.weight += (self.scale() * self.B @ self.A).to(self.linear.weight.dtype)
        return self.linear


@exercise.mistake("the merged layer has no bias", hint="nn.Linear(…, bias=…), and its bias copied.")
class MergedWithoutBias(LoRA):
    @torch.no_grad()
    def merged(self):
        full = super().merged()
        new = nn.Linear(full.in_features, full.out_features, bias=False, dtype=full.weight.dtype)
        new.weight.copy_(full.weight)
        return new


@exercise.mistake("the merged layer shares the old one's bias", hint="Nothing is shared: clone() or deepcopy.")
class MergedSharing(LoRA):
    def merged(self):
        new = super().merged()
        new.bias = self.linear.bias
        return new


@exercise.mistake("the merged layer is float32, whatever the old one was", hint="The dtype of linear.weight.")
class MergedFloat(LoRA):
    @torch.no_grad()
    def merged(self):
        full = super().merged()
        new = nn.Linear(full.in_features, full.out_features, bias=full.bias is not None)
        new.weight.copy_(full.weight)
        if full.bias is not None:
            new.bias.copy_(full.bias)
        forward = new.forward
        new.forward = lambda x: forward(x.float()).to(x.dtype)
        return new


@exercise.mistake(
    "A and B have the dtype of a bfloat16 layer",
    hint="An optimizer's small steps would be rounded away: float32, or float64 for float64.",
)
class SmallInBf16(LoRA):
    def small(self, dtype):
        return dtype


@exercise.mistake("A and B are float32 beside a float64 layer", hint="float64 there.")
class SmallInFloat(LoRA):
    def small(self, dtype):
        return torch.float32


@exercise.mistake("a bfloat16 layer answers in float32", hint="The result has the dtype of x.")
class Promoted(LoRA):
    def forward(self, x):
        return self.base(x) + self.update(x)


@exercise.mistake("the update is left out", hint="linear(x) + alpha / r * x A^T B^T.")
class NoUpdate(LoRA):
    def update(self, x):
        return 0 * super().update(x)


@exercise.mistake("merging gives the old layer", hint="W + alpha / r * B @ A, in a new layer.")
class MergedOld(LoRA):
    def merged(self):
        return copy.deepcopy(self.linear)


@exercise.mistake("merging gives back the very layer that was given", hint="A new layer, with W + alpha / r * B @ A.")
class MergedSame(LoRA):
    def merged(self):
        return self.linear


@exercise.mistake("alpha is left out of merging", hint="W + alpha / r * B @ A, as in the forward pass.")
class MergedByRank(LoRA):
    def merged_scale(self):
        return 1 / self.r


@exercise.mistake("A is drawn above 0 alone", hint="Evenly between -1 / sqrt(in) and 1 / sqrt(in): both signs.")
class PositiveA(LoRA):
    def first_A(self, A):
        return A.uniform_(0, A.shape[1] ** -0.5)


@exercise.mistake(
    "A is drawn from a normal distribution with the deviation 1 / sqrt(in)", hint="Evenly, within these bounds."
)
class NarrowNormalA(LoRA):
    def first_A(self, A):
        return A.normal_(std=A.shape[1] ** -0.5)


@exercise.mistake("A is drawn much too small", hint="Evenly between -1 / sqrt(in) and 1 / sqrt(in), all of that range.")
class SmallA(LoRA):
    def first_A(self, A):
        return A.normal_(std=0.01)


@exercise.mistake("the old layer is scaled, too", hint="linear(x) as it is; alpha / r scales the update alone.")
class AllScaled(LoRA):
    def base(self, x):
        return self.scale() * self.linear(x)


@exercise.mistake("merging empties B", hint="The layer stays as it is; the merged one is another.")
class MergedOnce(LoRA):
    @torch.no_grad()
    def merged(self):
        new = super().merged()
        self.B.zero_()
        return new


@exercise.mistake("the scale is trained, too", hint="alpha / r is a number. Only A and B are parameters.")
class TrainedScale(LoRA):
    def __init__(self, linear, r, alpha):
        super().__init__(linear, r, alpha)
        self.factor = nn.Parameter(torch.tensor(alpha / r, dtype=self.A.dtype))

    def scale(self):
        return self.factor


@exercise.mistake(
    "A is drawn as kaiming_uniform_ does by default", hint="Its bound is sqrt(6 / in): a=sqrt(5) is asked."
)
class DefaultKaiming(LoRA):
    def first_A(self, A):
        return nn.init.kaiming_uniform_(A)


@exercise.alternative
class OneWeight(nn.Module):
    """The sum of the weights first, one product then; merging by hand."""

    def __init__(self, linear, r, alpha):
        super().__init__()
        for p in linear.parameters():
            p.requires_grad = False
        self.base, self.factor = linear, alpha / r
        n, m = linear.in_features, linear.out_features
        dtype = torch.promote_types(linear.weight.dtype, torch.float32)
        self.A = nn.Parameter((torch.rand(r, n, dtype=dtype) * 2 - 1) / n**0.5)
        self.B = nn.Parameter(torch.zeros(m, r, dtype=dtype))

    def weight(self):
        return self.base.weight.to(self.A.dtype).addmm(self.B, self.A, alpha=self.factor)

    def forward(self, x):
        bias = self.base.bias
        out = torch.einsum("...i,oi->...o", x.to(self.A.dtype), self.weight())
        return (out if bias is None else out + bias).to(x.dtype)

    def merged(self):
        new = nn.Linear(
            self.base.in_features, self.base.out_features, self.base.bias is not None, dtype=self.base.weight.dtype
        )
        new.weight.data.copy_(self.weight().detach())
        if new.bias is not None:
            new.bias.data.copy_(self.base.bias)
        return new
