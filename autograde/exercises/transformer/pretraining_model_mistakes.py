"""Wrong losses and wrongly assembled GPTs, and a few right ones that look different."""

from __future__ import annotations

import math
import types

import torch
import torch.nn.functional as F

# ---- cross_entropy --------------------------------------------------------------------------------------------------


def _nats(logits, targets):
    """The loss of every token; of padding, something finite."""
    chosen = logits.gather(-1, targets.clamp(0, logits.shape[-1] - 1)[..., None])[..., 0]
    return logits.logsumexp(-1) - chosen


def _loss(each=_nats, mean=None, prepare=lambda logits: logits):
    """A loss in parts: what is done to the logits, the loss of each token, the mean over those that are kept."""

    def cross_entropy(logits, targets, ignore_index=-100):
        return (mean or _mean)(each(prepare(logits), targets), targets != ignore_index)

    return cross_entropy


def _mean(losses, kept):
    return losses[kept].mean()


def _mean_of_rows(losses, kept):
    """Each row's own mean first."""
    if losses.dim() == 0:
        return losses
    rows = [_mean(row, keep) for row, keep in zip(losses, kept, strict=True) if bool(keep.any())]
    return torch.stack(rows).mean()


def _naive(logits, targets):
    chosen = logits.gather(-1, targets.clamp(0, logits.shape[-1] - 1)[..., None])[..., 0]
    return logits.exp().sum(-1).log() - chosen


def _of_probabilities(floor):
    """log(p + floor), so that a probability of 0 does no harm."""

    def each(logits, targets):
        chosen = logits.softmax(-1).gather(-1, targets.clamp(0, logits.shape[-1] - 1)[..., None])[..., 0]
        return -(chosen + floor).log()

    return each


def _one_maximum(logits, targets):
    return _naive(logits - logits.max(), targets)


def _brier(logits, targets):
    wanted = F.one_hot(targets.clamp(0, logits.shape[-1] - 1), logits.shape[-1])
    return (logits.softmax(-1) - wanted).square().sum(-1)


def _unlikely(logits, targets):
    chosen = logits.softmax(-1).gather(-1, targets.clamp(0, logits.shape[-1] - 1)[..., None])[..., 0]
    return 1 - chosen


def _not_normalised(logits, targets):
    return -logits.gather(-1, targets.clamp(0, logits.shape[-1] - 1)[..., None])[..., 0]


loss_by_hand = _loss()
loss_over_all = _loss(mean=lambda losses, kept: losses.mean())
loss_divided_by_all = _loss(mean=lambda losses, kept: (losses * kept).sum() / losses.numel())
loss_summed = _loss(mean=lambda losses, kept: losses[kept].sum())
loss_by_rows = _loss(mean=_mean_of_rows)
loss_naive = _loss(_naive)
loss_with_floor = _loss(_of_probabilities(1e-9))
loss_one_maximum = _loss(_one_maximum)
loss_of_softmax = _loss(prepare=lambda logits: logits.softmax(-1))
loss_brier = _loss(_brier)
loss_unlikely = _loss(_unlikely)
loss_not_normalised = _loss(_not_normalised)
loss_in_bits = _loss(lambda logits, targets: _nats(logits, targets) / math.log(2))
loss_sign = _loss(lambda logits, targets: -_nats(logits, targets))
loss_perplexity = _loss(mean=lambda losses, kept: losses[kept].mean().exp())
loss_over_positions = _loss(
    prepare=lambda logits: logits.log_softmax(-2) if logits.dim() > 1 else logits.log_softmax(-1),
    each=_not_normalised,
)
loss_smoothed = _loss(lambda logits, targets: 0.9 * _nats(logits, targets) - 0.1 * logits.log_softmax(-1).mean(-1))
loss_as_float = _loss(mean=lambda losses, kept: losses[kept].mean().item())


def loss_fixed_index(logits, targets, ignore_index=-100):
    """-100 is ignored, whatever ignore_index says."""
    return loss_by_hand(logits, targets, -100)


def loss_all_negatives(logits, targets, ignore_index=-100):
    """Every target below zero is ignored, and no other."""
    return _mean(_nats(logits, targets), targets >= 0)


def loss_shifts_again(logits, targets, ignore_index=-100):
    """Shifts the targets by one, although the batch has done so."""
    if targets.dim() == 0 or targets.shape[-1] < 2:
        return loss_by_hand(logits, targets, ignore_index)
    return loss_by_hand(logits[..., :-1, :], targets[..., 1:], ignore_index)


def loss_without_class(logits, targets, ignore_index=-100):
    """The ignored class is taken out of the softmax as well."""
    if 0 <= ignore_index < logits.shape[-1]:
        logits = logits.index_fill(-1, torch.tensor(ignore_index), -torch.inf)
    return loss_by_hand(logits, targets, ignore_index)


def loss_by_mask(logits, targets, ignore_index=-100):
    """Flat, with a mask in place of an index, and the maximum by hand."""
    logits, targets = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
    kept = (targets != ignore_index).to(logits.dtype)
    low = logits - logits.max(-1, keepdim=True).values
    log_probabilities = low - low.exp().sum(-1, keepdim=True).log()
    chosen = log_probabilities[torch.arange(len(targets)), targets.clamp(0, logits.shape[-1] - 1)]
    return -(chosen * kept).sum() / kept.sum()


def loss_by_one_hot(logits, targets, ignore_index=-100):
    kept = targets != ignore_index
    wanted = F.one_hot(targets[kept], logits.shape[-1]).to(logits.dtype)
    return -(logits.log_softmax(-1)[kept] * wanted).sum(-1).mean(0)


# ---- gpt_forward ----------------------------------------------------------------------------------------------------


def _split(h, heads):
    return h.unflatten(-1, (heads, -1)).transpose(-3, -2)


def _join(h):
    return h.transpose(-3, -2).flatten(-2)


def _causal(n):
    return torch.ones(n, n, dtype=torch.bool).tril()


def _rotated(q, k, v, positions, parts):
    return parts.rope(q, positions), parts.rope(k, positions), v


def _attend(h, layer, heads, parts, **changes):
    """Attention of one layer in parts: projection, split, rotation, mask, join, output."""
    usual = {"split": _split, "rotate": _rotated, "mask": _causal, "join": _join, "product": lambda x, w: x @ w.T}
    do = usual | changes
    q, k, v = (do["split"](do["product"](h, layer[name]), heads) for name in "qkv")
    positions = torch.arange(h.shape[-2])
    joined = do["join"](parts.attention(*do["rotate"](q, k, v, positions, parts), do["mask"](h.shape[-2])))
    return do["product"](joined, layer["o"]) if do.get("output", True) else joined


def _mlp(h, layer, parts):
    return parts.mlp(h, layer["gate"], layer["up"], layer["down"])


def _pre_norm(x, layer, attend, parts):
    x = x + attend(parts.norm(x, layer["norm1"]))
    return x + _mlp(parts.norm(x, layer["norm2"]), layer, parts)


def _logits(x, weights, parts):
    return parts.norm(x, weights["norm"]) @ weights["embed"].T


def _gpt(block=_pre_norm, head=_logits, stack=list, enter=lambda x: x, **attention):
    """A GPT in parts: what is done to the embeddings, the block, the order of the layers, the head, the attention."""

    def forward(ids, weights, n_heads, parts):
        x = enter(weights["embed"][ids])
        for layer in stack(weights["layers"]):
            x = block(x, layer, lambda h, layer=layer: _attend(h, layer, n_heads, parts, **attention), parts)
        return head(x, weights, parts)

    return forward


def _block(*steps):
    """A block from its steps: x = step(x, p), where p has the norms n1, n2 and bare, the attention a and the MLP m."""

    def block(x, layer, attend, parts):
        p = types.SimpleNamespace(
            a=attend, m=lambda h: _mlp(h, layer, parts), bare=parts.norm,
            n1=lambda h: parts.norm(h, layer["norm1"]), n2=lambda h: parts.norm(h, layer["norm2"]),
        )
        for step in steps:
            x = step(x, p)
        return x

    return block


gpt = _gpt()
gpt_post_norm = _gpt(_block(lambda x, p: p.n1(x + p.a(x)), lambda x, p: p.n2(x + p.m(x))))
gpt_without_norms = _gpt(_block(lambda x, p: x + p.a(x), lambda x, p: x + p.m(x)))
gpt_norms_outside = _gpt(_block(lambda x, p: x + p.n1(p.a(x)), lambda x, p: x + p.n2(p.m(x))))
gpt_norm_replaces_x = _gpt(_block(
    lambda x, p: p.n1(x), lambda x, p: x + p.a(x), lambda x, p: p.n2(x), lambda x, p: x + p.m(x),
))
gpt_one_norm = _gpt(_block(lambda x, p: x + p.a(p.n1(x)), lambda x, p: x + p.m(p.n1(x))))
gpt_norms_swapped = _gpt(_block(lambda x, p: x + p.a(p.n2(x)), lambda x, p: x + p.m(p.n1(x))))
gpt_norms_without_weight = _gpt(_block(lambda x, p: x + p.a(p.bare(x)), lambda x, p: x + p.m(p.bare(x))))
gpt_parallel = _gpt(_block(lambda x, p: x + p.a(p.n1(x)) + p.m(p.n2(x))))
gpt_mlp_first = _gpt(_block(lambda x, p: x + p.m(p.n2(x)), lambda x, p: x + p.a(p.n1(x))))
gpt_no_first_sum = _gpt(_block(lambda x, p: p.a(p.n1(x)), lambda x, p: x + p.m(p.n2(x))))
gpt_no_second_sum = _gpt(_block(lambda x, p: x + p.a(p.n1(x)), lambda x, p: p.m(p.n2(x))))
gpt_no_sums = _gpt(_block(lambda x, p: p.m(p.n2(p.a(p.n1(x))))))
gpt_no_mlp = _gpt(_block(lambda x, p: x + p.a(p.n1(x))))
gpt_no_last_norm = _gpt(head=lambda x, weights, parts: x @ weights["embed"].T)
gpt_bare_last_norm = _gpt(head=lambda x, weights, parts: parts.norm(x) @ weights["embed"].T)
gpt_probabilities = _gpt(head=lambda x, weights, parts: _logits(x, weights, parts).softmax(-1))
gpt_last_token = _gpt(head=lambda x, weights, parts: _logits(x[:, -1], weights, parts))
gpt_hidden_states = _gpt(head=lambda x, weights, parts: parts.norm(x, weights["norm"]))
gpt_in_float32 = _gpt(enter=lambda x: x, head=lambda x, weights, parts: _logits(x, weights, parts).float())
gpt_first_layer_again = _gpt(stack=lambda layers: layers[:1] * len(layers))
gpt_layers_reversed = _gpt(stack=lambda layers: layers[::-1])
gpt_last_layer_missing = _gpt(stack=lambda layers: layers[:-1])
gpt_scaled_embeddings = _gpt(enter=lambda x: x * math.sqrt(x.shape[-1]))
gpt_no_mask = _gpt(mask=lambda n: torch.ones(n, n, dtype=torch.bool))
gpt_mask_inverted = _gpt(mask=lambda n: ~_causal(n))
gpt_reads_the_future = _gpt(mask=lambda n: _causal(n).T)
gpt_mask_without_self = _gpt(mask=lambda n: torch.ones(n, n, dtype=torch.bool).tril(-1))
gpt_no_rope = _gpt(rotate=lambda q, k, v, at, parts: (q, k, v))
gpt_rope_on_q = _gpt(rotate=lambda q, k, v, at, parts: (parts.rope(q, at), k, v))
gpt_rope_on_v = _gpt(rotate=lambda q, k, v, at, parts: tuple(parts.rope(x, at) for x in (q, k, v)))
gpt_rope_backwards = _gpt(rotate=lambda q, k, v, at, parts: (parts.rope(q, -at), parts.rope(k, -at), v))
gpt_heads_unturned = _gpt(split=lambda h, heads: h.reshape(*h.shape[:-2], heads, h.shape[-2], -1))
gpt_joined_unturned = _gpt(join=lambda h: h.reshape(*h.shape[:-3], h.shape[-2], -1))
gpt_heads_interleaved = _gpt(
    split=lambda h, heads: h.unflatten(-1, (-1, heads)).movedim(-1, -3), join=lambda h: h.movedim(-3, -1).flatten(-2)
)
gpt_no_output = _gpt(output=False)
gpt_untransposed = _gpt(product=lambda x, w: x @ w)


def gpt_one_head(ids, weights, n_heads, parts):
    return gpt(ids, weights, 1, parts)


def gpt_gate_and_up_swapped(ids, weights, n_heads, parts):
    layers = [{**layer, "gate": layer["up"], "up": layer["gate"]} for layer in weights["layers"]]
    return gpt(ids, {**weights, "layers": layers}, n_heads, parts)


def gpt_rope_before_split(ids, weights, n_heads, parts):
    """The rotation runs over the whole width instead of over each head."""

    def rotate(q, k, v, positions, parts):
        return *(_split(parts.rope(_join(x), positions), n_heads) for x in (q, k)), v

    return _gpt(rotate=rotate)(ids, weights, n_heads, parts)


def gpt_by_library(ids, weights, n_heads, parts):
    """torch's attention and loops over heads; the other parts as given."""
    n, x = ids.shape[1], F.embedding(ids, weights["embed"])
    for w in weights["layers"]:
        h = parts.norm(x, w["norm1"])
        blocks = [[F.linear(h, part) for part in w[name].chunk(n_heads)] for name in "qkv"]
        heads = [
            F.scaled_dot_product_attention(parts.rope(q, torch.arange(n)), parts.rope(k, torch.arange(n)), v,
                                           is_causal=True)
            for q, k, v in zip(*blocks, strict=True)
        ]
        x = x + F.linear(torch.cat(heads, -1), w["o"])
        x = x + parts.mlp(parts.norm(x, w["norm2"]), w["gate"], w["up"], w["down"])
    return F.linear(parts.norm(x, weights["norm"]), weights["embed"])


def gpt_from_position_seven(ids, weights, n_heads, parts):
    """Positions may begin anywhere: only distances count. The mask has the batch's dimensions."""
    late = types.SimpleNamespace(**{**vars(parts), "rope": lambda x, at: parts.rope(x, at + 7)})
    return _gpt(mask=lambda n: (torch.arange(n)[:, None] >= torch.arange(n))[None, None])(ids, weights, n_heads, late)
