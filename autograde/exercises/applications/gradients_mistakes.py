"""Wrong ways to initialise and to measure gradients, and a few right ones that look different."""

from __future__ import annotations

import math

import torch
from torch import nn

# ---- init_std -------------------------------------------------------------------------------------------------------


def _fans(shape):
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def _std(xavier=lambda i, o: 2 / (i + o), he=lambda i, o, slope: 2 / ((1 + slope**2) * i), fans=_fans, end=math.sqrt,
         refuse_bias=True, refuse_scheme=True):
    """An `init_std` with some of its parts exchanged; `xavier` and `he` give variances."""

    def init_std(shape, scheme, slope=0.0):
        if refuse_bias and len(shape) < 2:
            raise ValueError("a weight has at least two dimensions")
        if refuse_scheme and scheme not in ("xavier", "he"):
            raise ValueError(scheme)
        fan_in, fan_out = fans(shape)
        return end(xavier(fan_in, fan_out) if scheme == "xavier" else he(fan_in, fan_out, slope))

    return init_std


def _fans_without_kernel(shape):
    return shape[1], shape[0]


def _fans_with_kernel_coming_in(shape):
    return shape[1] * math.prod(shape[2:]), shape[0]


def _fans_from_the_ends(shape):
    return shape[-1], shape[0]


def _fans_of_a_bias(shape):
    return _fans(shape) if len(shape) > 1 else (shape[0] if shape else 1,) * 2


def _fans_with_kernel_width(shape):
    width = shape[2] if len(shape) > 2 else 1
    return shape[1] * width, shape[0] * width


right_std = _std()
std_fans_swapped = _std(fans=lambda shape: _fans(shape)[::-1])
std_kernel_forgotten = _std(fans=_fans_without_kernel)
std_kernel_of_one_side = _std(fans=_fans_with_kernel_coming_in)
std_last_dimension = _std(fans=_fans_from_the_ends)
std_kernel_width = _std(fans=_fans_with_kernel_width)
std_variance = _std(end=lambda variance: variance)
std_bounds = _std(end=lambda variance: math.sqrt(3 * variance))
std_xavier_lecun = _std(xavier=lambda i, o: 1 / i)
std_xavier_without_two = _std(xavier=lambda i, o: 1 / (i + o))
std_xavier_product = _std(xavier=lambda i, o: 1 / math.sqrt(i * o))
std_he_without_two = _std(he=lambda i, o, slope: 1 / ((1 + slope**2) * i))
std_he_average = _std(he=lambda i, o, slope: 4 / ((1 + slope**2) * (i + o)))
std_slope_ignored = _std(he=lambda i, o, slope: 2 / i)
std_slope_not_squared = _std(he=lambda i, o, slope: 2 / ((1 + slope) * i))
std_slope_squared_late = _std(he=lambda i, o, slope: 2 / ((1 + slope) ** 2 * i))
std_bias_taken = _std(fans=_fans_of_a_bias, refuse_bias=False)
std_scheme_taken = _std(refuse_scheme=False)


def std_slope_everywhere(shape, scheme, slope=0.0):
    std = right_std(shape, scheme, slope)
    return std if scheme == "he" else std / math.sqrt(1 + slope**2)


def std_by_tensors(shape, scheme, slope=0.0):
    if len(shape) < 2 or scheme not in {"he", "xavier"}:
        raise ValueError("no such weight")
    fake = torch.empty(shape, device="meta")
    fan_in, fan_out = fake[0].numel(), fake[:, 0].numel()
    parts = {"he": torch.tensor(0.5 * fan_in * (1 + slope * slope)), "xavier": torch.tensor((fan_in + fan_out) / 2)}
    return parts[scheme].rsqrt()


# ---- init_network ---------------------------------------------------------------------------------------------------

_DRAWN, _NORMS = (nn.Linear, nn.Conv1d, nn.Conv2d), (nn.LayerNorm, nn.BatchNorm1d)


def _draw(weight, scheme, g):
    return torch.randn(weight.shape, generator=g, dtype=weight.dtype) * right_std(weight.shape, scheme)


def _zero(bias, scheme, g):
    return torch.zeros_like(bias)


def _network(draw=_draw, bias=_zero, gain=1.0, drawn=_DRAWN, norms=_NORMS, among=nn.Module.modules, returns=True,
             takes=lambda module: True):
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


def _first_again(weight, scheme, g):
    return _draw(weight, scheme, g.manual_seed(0))


def _from_the_global_state(weight, scheme, g):
    return torch.randn(weight.shape) * right_std(weight.shape, scheme)


def _uniform(weight, scheme, g):
    return (2 * torch.rand(weight.shape, generator=g) - 1) * 3**0.5 * right_std(weight.shape, scheme)


def _of_the_transpose(weight, scheme, g):
    turned = weight.transpose(0, 1)
    return (torch.randn(weight.shape, generator=g)) * right_std(turned.shape, scheme)


def _small(bias, scheme, g):
    return torch.randn(bias.shape, generator=g) * 0.01


right_network = _network()
network_small = _network(lambda w, scheme, g: torch.randn(w.shape, generator=g) * 0.02)
network_unit = _network(lambda w, scheme, g: torch.randn(w.shape, generator=g))
network_zero = _network(lambda w, scheme, g: torch.zeros_like(w))
network_variance = _network(lambda w, scheme, g: torch.randn(w.shape, generator=g) * right_std(w.shape, scheme) ** 2)
network_always_he = _network(lambda w, scheme, g: _draw(w, "he", g))
network_seeded_again = _network(_first_again)
network_global = _network(_from_the_global_state)
network_uniform = _network(_uniform)
network_transposed = _network(_of_the_transpose)
network_bias_left = _network(bias=lambda b, scheme, g: b)
network_bias_drawn = _network(bias=_small)
network_children = _network(among=nn.Module.children)
network_linear_only = _network(drawn=nn.Linear)
network_norms_left = _network(norms=())
network_norms_zero = _network(gain=0.0)
network_embedding_drawn = _network(drawn=(*_DRAWN, nn.Embedding))
network_nothing_returned = _network(returns=False)
network_frozen_skipped = _network(takes=lambda module: module.weight.requires_grad)


def network_every_matrix(model, scheme, generator):
    """By shape, not by kind: every parameter of two or more dimensions is drawn, every other becomes zero."""
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(_draw(p, scheme, generator) if p.dim() > 1 else torch.zeros_like(p))
    return model


def network_replaced(model, scheme, generator):
    """The right numbers in new Parameters: an optimizer that was made before keeps the old ones."""
    right_network(model, scheme, generator)
    for module in model.modules():
        if isinstance(module, _DRAWN):
            module.weight = nn.Parameter(module.weight.detach().clone(), requires_grad=module.weight.requires_grad)
    return model


def network_thawed(model, scheme, generator):
    return right_network(model, scheme, generator).requires_grad_(True)


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


# ---- gradient_norms_by_layer ----------------------------------------------------------------------------------------


def _norms(of_layer=None, entries=lambda layer: layer.parameters(), wide=torch.float64, read=lambda p: p.grad,
           order=list, none=None):
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


def _length(gradients):
    """Squares are added in the dtype that the gradients come in."""
    return sum(g.square().sum() for g in gradients).sqrt()


def _joined(gradients):
    return torch.cat([g.flatten() for g in gradients])


_ZERO = torch.zeros(())
right_norms = _norms(none=_ZERO)
norms_summed = _norms(lambda gs: sum(g.norm() for g in gs), none=_ZERO)
norms_averaged = _norms(lambda gs: sum(g.norm() for g in gs) / len(gs), none=_ZERO)
norms_rms = _norms(lambda gs: _joined(gs).square().mean().sqrt(), none=_ZERO)
norms_squared = _norms(lambda gs: _joined(gs).square().sum(), none=_ZERO)
norms_l1 = _norms(lambda gs: _joined(gs).abs().sum(), none=_ZERO)
norms_largest_entry = _norms(lambda gs: _joined(gs).abs().max(), none=_ZERO)
norms_largest_part = _norms(lambda gs: max(g.norm() for g in gs), none=_ZERO)
norms_narrow = _norms(wide=None, none=_ZERO)
norms_single = _norms(wide=torch.float32, none=_ZERO)
norms_of_weights = _norms(read=lambda p: p.detach(), none=_ZERO)
norms_layers_missing = _norms()
norms_sorted = _norms(order=lambda layers: [layers.get_submodule(n) for n in sorted(dict(layers.named_children()))],
                      none=_ZERO)
norms_backwards = _norms(order=lambda layers: list(layers)[::-1], none=_ZERO)
norms_direct_only = _norms(entries=lambda layer: layer.parameters(recurse=False), none=_ZERO)
norms_weights_only = _norms(entries=lambda layer: (p for n, p in layer.named_parameters() if "bias" not in n),
                            none=_ZERO)
norms_tied_twice = _norms(entries=lambda layer: (p for _, p in layer.named_parameters(remove_duplicate=False)),
                          none=_ZERO)


def norms_by_substring(model, path):
    """Asks whether "layers.1" stands in a name: so it does in that of layer 10, and of an encoder's layer 1."""
    short = path.rpartition(".")[2]
    parts = [[p.grad for n, p in model.named_parameters() if f"{short}.{i}" in n and p.grad is not None]
             for i in range(len(model.get_submodule(path)))]
    return torch.stack([_length([g.double() for g in part]).float() if part else _ZERO for part in parts])


def norms_with_all(model, path):
    """Everything in the model, in every layer's place."""
    count = len(model.get_submodule(path))
    total = _length([p.grad.double() for p in model.parameters() if p.grad is not None])
    return total.float().expand(count)


def norms_as_shares(model, path):
    norms = right_norms(model, path)
    return norms / norms.norm()


def norms_raising(model, path):
    return torch.stack([_length([p.grad.double() for p in layer.parameters()]).float()
                        for layer in model.get_submodule(path)])


def norms_and_clear(model, path):
    norms = right_norms(model, path)
    model.zero_grad()
    return norms


def norms_by_names(model, path):
    """One pass over all names, with a full prefix; `hypot` never forms a square that overflows."""
    norms = [0.0] * len(model.get_submodule(path))
    for name, parameter in model.named_parameters():
        if name.startswith(path + ".") and parameter.grad is not None:
            index = int(name[len(path) + 1 :].partition(".")[0])
            norms[index] = math.hypot(norms[index], *parameter.grad.flatten().tolist())
    return torch.tensor(norms)


def norms_by_library(model, path):
    layers = model.get_submodule(path).children()
    found = [[p.grad.double() for p in layer.parameters() if p.grad is not None] for layer in layers]
    return torch.tensor([float(torch.linalg.vector_norm(_joined(gs))) if gs else 0.0 for gs in found])
