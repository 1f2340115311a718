"""Wrong SwiGLUs and learning rate plans, and a few right ones that look different."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

# ---- swiglu ---------------------------------------------------------------------------------------------------------


def _gated(mix):
    """An MLP whose hidden values are `mix(gate scores, up values)`."""

    def mlp(x, w_gate, w_up, w_down):
        return mix(x @ w_gate.T, x @ w_up.T) @ w_down.T

    return mlp


gated_by_silu = _gated(lambda gate, up: F.silu(gate) * up)
gated_by_hand = _gated(lambda gate, up: gate * torch.sigmoid(gate) * up)
silu_on_up = _gated(lambda gate, up: gate * F.silu(up))
silu_on_both = _gated(lambda gate, up: F.silu(gate) * F.silu(up))
silu_on_product = _gated(lambda gate, up: F.silu(gate * up))
gate_by_sigmoid = _gated(lambda gate, up: torch.sigmoid(gate) * up)
gate_by_gelu = _gated(lambda gate, up: F.gelu(gate) * up)
gate_by_tanh_gelu = _gated(lambda gate, up: F.gelu(gate, approximate="tanh") * up)
gate_by_relu = _gated(lambda gate, up: F.relu(gate) * up)
gate_by_quick_gelu = _gated(lambda gate, up: gate * torch.sigmoid(1.702 * gate) * up)
gate_by_softmax = _gated(lambda gate, up: gate.softmax(-1) * up)
gate_without_silu = _gated(lambda gate, up: gate * up)
up_without_gate = _gated(lambda gate, up: F.silu(up))
gate_without_up = _gated(lambda gate, up: F.silu(gate))
gate_plus_up = _gated(lambda gate, up: F.silu(gate) + up)
gate_by_tanh = _gated(lambda gate, up: torch.tanh(gate) * up)
gate_twice = _gated(lambda gate, up: F.silu(gate) * gate)
silu_minus = _gated(lambda gate, up: gate * torch.sigmoid(-gate) * up)


def silu_in_float32(x, w_gate, w_up, w_down):
    return gated_by_silu(x.float(), w_gate.float(), w_up.float(), w_down.float())


def silu_after_down(x, w_gate, w_up, w_down):
    return F.silu((x @ w_gate.T * (x @ w_up.T)) @ w_down.T)


def swiglu_fused(x, w_gate, w_up, w_down):
    """Both projections as one matrix, as inference engines do."""
    gate, up = F.linear(x, torch.cat([w_gate, w_up])).chunk(2, dim=-1)
    return F.linear(up * F.silu(gate), w_down)


def swiglu_by_einsum(x, w_gate, w_up, w_down):
    gate = torch.einsum("...d,hd->...h", x, w_gate)
    return torch.einsum("...h,hd,...d,eh->...e", gate / (1 + torch.exp(-gate)), w_up, x, w_down)


# ---- warmup_cosine_lr -----------------------------------------------------------------------------------------------


def _planned(warm=lambda step, warmup: step / warmup, progress=None, fall=None, land=None):
    """A schedule in parts: the warm-up's share, how far the decay is, its share of the peak, and the way it lands."""

    def rate(step, peak, warmup, total, floor=0.0):
        if step < warmup:
            return peak * warm(step, warmup)
        far = (progress or _progress)(step, warmup, total)
        return (land or _land)((fall or _half_cosine)(far), peak, floor)

    return rate


def _progress(step, warmup, total):
    return min((step - warmup) / (total - warmup), 1.0)


def _half_cosine(far):
    return (1 + math.cos(math.pi * far)) / 2


def _land(share, peak, floor):
    return floor + (peak - floor) * share


planned = _planned()
warm_from_one = _planned(lambda step, warmup: (step + 1) / warmup)
warm_never_full = _planned(lambda step, warmup: (step + 1) / (warmup + 1))
warm_not_at_all = _planned(lambda step, warmup: 1.0)
warm_by_root = _planned(lambda step, warmup: math.sqrt(step / warmup))
warm_by_cosine = _planned(lambda step, warmup: (1 - math.cos(math.pi * step / warmup)) / 2)
over_all_steps = _planned(progress=lambda step, warmup, total: min(step / total, 1.0))
past_the_warmup = _planned(progress=lambda step, warmup, total: min((step - warmup) / total, 1.0))
rises_again = _planned(progress=lambda step, warmup, total: (step - warmup) / (total - warmup))
one_step_early = _planned(progress=lambda step, warmup, total: min((step - warmup + 1) / (total - warmup), 1.0))
full_cosine = _planned(fall=lambda far: (1 + math.cos(2 * math.pi * far)) / 2)
quarter_cosine = _planned(fall=lambda far: math.cos(math.pi * far / 2))
straight_down = _planned(fall=lambda far: 1 - far)
without_half = _planned(fall=lambda far: 1 + math.cos(math.pi * far))
without_one = _planned(fall=lambda far: math.cos(math.pi * far))
in_degrees = _planned(fall=lambda far: (1 + math.cos(math.pi * far * math.pi / 180)) / 2)
rises_to_the_peak = _planned(fall=lambda far: (1 - math.cos(math.pi * far)) / 2)
in_whole_numbers = _planned(progress=lambda step, warmup, total: min((step - warmup) // (total - warmup), 1))
never_down = _planned(fall=lambda far: 1.0)
floor_ignored = _planned(land=lambda share, peak, floor: peak * share)
floor_on_top = _planned(land=lambda share, peak, floor: floor + peak * share)
floor_as_share = _planned(land=lambda share, peak, floor: peak * (floor + (1 - floor) * share))
floor_as_limit = _planned(land=lambda share, peak, floor: max(peak * share, floor))
peak_forgotten = _planned(lambda step, warmup: step / warmup, land=lambda share, peak, floor: share)


def warm_from_floor(step, peak, warmup, total, floor=0.0):
    if step < warmup:
        return floor + (peak - floor) * step / warmup
    return planned(step, peak, warmup, total, floor)


def warm_at_least_floor(step, peak, warmup, total, floor=0.0):
    return max(floor, planned(step, peak, warmup, total, floor))


def warm_at_step_zero(step, peak, warmup, total, floor=0.0):
    """`<=` for `<`: without a warm-up step 0 has no rate."""
    return peak * step / max(warmup, 1) if step <= warmup else planned(step, peak, warmup, total, floor)


def nothing_at_the_end(step, peak, warmup, total, floor=0.0):
    """Past the plan the rate is 0 instead of the floor."""
    return 0.0 if step > total else planned(step, peak, warmup, total, floor)


def planned_by_minimum(step, peak, warmup, total, floor=0.0):
    """The lower of two curves: a rising line and a falling cosine that stays at its ends."""
    far = torch.tensor((step - warmup) / (total - warmup)).clamp(0, 1)
    cosine = floor + 0.5 * (peak - floor) * (1 + torch.cos(torch.pi * far))
    return torch.minimum(cosine, torch.tensor(peak * step / max(warmup, 1))) if step < warmup else cosine


def planned_by_squares(step, peak, warmup, total, floor=0.0):
    """(1 + cos a) / 2 is cos² (a / 2)."""
    if step < warmup:
        return step * peak / warmup
    if step >= total:
        return floor
    turn = math.cos(0.5 * math.pi * (step - warmup) / (total - warmup)) ** 2
    return peak * turn + floor * (1 - turn)
