"""`ring_attention(q, k, v, lengths, shift, causal=False)`

Attention over a sequence that is cut into blocks, one a rank: keys and values go round a ring.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.shared import agree_by_entry, place
from autograde.exercises.shared import pick, randn

exercise = Draft(
    "ring_attention",
    points=4,
    ranks=True,
    limit=4.0,
    dtypes=[torch.float64],
    strides=False,
    hints=[
        "In step s rank r looks at the block that began on rank (r - s) % n. What do you have to remember of the "
        "blocks before, so that in the end it is one softmax over all keys?",
        "For each query the largest score so far, the sum of exp(score - largest), and the sum of values with these "
        "weights. When the largest one grows, scale both sums by exp(old - new).",
        "new = torch.maximum(top, scores.amax(-1, keepdim=True).detach()); w = (scores - new).exp(); fix = (top - "
        "new).exp(); total = total * fix + w.sum(-1, keepdim=True); out = out * fix + w @ v; top = new. Between two "
        "blocks k, v = shift(k, rows), shift(v, rows) with rows = lengths[(r - s - 1) % n]; return out / total.",
    ],
)


@exercise.cases
def blocks(g):
    def some(lengths, label, heads=2, scale=1.0, dtype=torch.float32, **options):
        d = pick(g, 3, 4)
        q, k, v = (randn(g, heads, sum(lengths), d).to(dtype) for _ in range(3))
        return case(scale * q, k, v, lengths, ranks=len(lengths), label=label, **options)

    yield some([5, 7], "two blocks, the second one longer")
    yield some([7, 5], "two blocks, causal", causal=True)
    yield some([5, 8, 7], "three blocks, large scores", heads=3, scale=900.0, dtype=torch.float64)
    yield some([6, 4, 8], "three blocks, causal", causal=True, heads=1)
    yield some([6, 5, 8, 7], "four blocks, causal", causal=True)


@exercise.probe
def on_rank(ring_attention, q, k, v, lengths, causal=False):
    """One forward and one backward pass on this rank's block, and the largest tensor that was made in between."""
    import torch
    import torch.distributed as dist
    from torch.utils._python_dispatch import TorchDispatchMode

    from labkit.scaling import shift

    largest = [0]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor):
                largest[0] = max(largest[0], made.numel())
            return made

    rank = dist.get_rank()
    start = sum(lengths[:rank])
    own = [t[:, start : start + lengths[rank]].clone().requires_grad_() for t in (q, k, v)]
    with Watch():
        out = ring_attention(*own, list(lengths), shift, **({"causal": True} if causal else {}))
    told = {"output": out.detach(), "largest": largest[0]}
    pull = torch.linspace(-1.0, 2.0, own[0].numel(), dtype=q.dtype).reshape(own[0].shape)
    if out.requires_grad:
        (out * pull).sum().backward()
    for name, leaf in zip(("q", "k", "v"), own, strict=True):
        told[f"gradient of {name}"] = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    return told


@exercise.oracle
def whole_sequence(q, k, v, lengths, causal=False):
    """torch's own attention over the whole sequence, in one process."""
    own = [t.clone().requires_grad_() for t in (q, k, v)]
    out = torch.nn.functional.scaled_dot_product_attention(*own, is_causal=causal)
    parts = out.split(lengths, 1)
    pulls = [torch.linspace(-1.0, 2.0, p.numel(), dtype=q.dtype).reshape(p.shape) for p in parts]
    sum((p * pull).sum() for p, pull in zip(parts, pulls, strict=True)).backward()
    grads = [t.grad.split(lengths, 1) for t in own]
    return [
        {"output": parts[r].detach()} | {f"gradient of {n}": g[r] for n, g in zip(("q", "k", "v"), grads, strict=True)}
        for r in range(len(lengths))
    ]


exercise.agrees(agree_by_entry(["output", "gradient of q", "gradient of k", "gradient of v"], whole_sequence))


@exercise.law("Keys and values go once round the ring, and their gradients come back", essential=True)
def once_round(out, one, call):
    q, _, _, lengths = one.args
    size = 2 * q.shape[0] * q.shape[2] * q.element_size()
    for r, messages in enumerate(out.traffic):
        if other := {m.op for m in messages} - {"send", "recv"}:
            return f"{one.label}: rank {r} calls {', '.join(sorted(other))}; a ring only sends and receives"
        sent = sum(m.bytes for m in messages if m.op == "send")
        n = len(lengths)
        need = size * (sum(lengths) - lengths[(r + 1) % n] + sum(lengths) - lengths[r])
        if sent != need:
            return f"{one.label}: rank {r} sends {sent} bytes, and {need} are needed"
    return True


@exercise.law("No rank ever puts the whole sequence together", essential=True)
def blockwise(out, one, call):
    q, _, _, lengths = one.args
    heads, length, d = q.shape
    most = heads * max(max(lengths) ** 2, 2 * max(lengths) * d)
    if heads * length * d <= most:
        return None
    for r, told in enumerate(out):
        if told["largest"] > most:
            return f"{one.label}: rank {r} makes a tensor of {told['largest']} numbers; blocks need {most} at most"
    return True


def _attend(
    q,
    k,
    v,
    lengths,
    shift,
    causal=False,
    scale=None,
    rescale=("total", "out"),
    divide="end",
    hidden=None,
    late=1,
    steps=0,
    owner=lambda rank, step: rank - step,
    start=lambda lengths, r, own: sum(lengths[:r]),
):
    """Right as it stands. A mistake takes one of its parts another way."""
    rank, n = place()
    scale = q.shape[-1] ** -0.5 if scale is None else scale(q)
    starts = [start(lengths, r, q.shape[1]) for r in range(n)]
    top, total, out = torch.full_like(q[..., :1], -torch.inf), torch.zeros_like(q[..., :1]), torch.zeros_like(q)
    hidden = hidden or (lambda rows, cols, source: cols > rows)
    for step in range(n + steps):
        source = owner(rank, step) % n
        scores = q @ k.transpose(1, 2) * scale
        if causal:
            rows = torch.arange(q.shape[1])[:, None] + starts[rank]
            cols = torch.arange(k.shape[1])[None] + starts[source]
            scores = scores.masked_fill(hidden(rows, cols, source), -torch.inf)
        new = torch.maximum(top, scores.amax(-1, keepdim=True).detach())
        weights = (scores - new).exp()
        fix = {part: (top - new).exp() if part in rescale else torch.ones_like(top) for part in ("total", "out")}
        if divide == "each":
            out = out + torch.nan_to_num(weights / weights.sum(-1, keepdim=True)) @ v / n
            total = torch.ones_like(total)
        else:
            total, out = total * fix["total"] + weights.sum(-1, keepdim=True), out * fix["out"] + weights @ v
        if divide == "again":
            out, total = out / total, torch.ones_like(total)
        top = new
        if step < n + steps - 1:
            rows = lengths[(rank - step - late) % n]
            k = shift(k, rows)
            v = shift(v, rows)
    return out if divide == "never" else out / total


exercise.alternative(_attend)


@exercise.alternative
def with_log_sums(q, k, v, lengths, shift, causal=False):
    """Each block's own attention, and the log of its sum; two of them are weighed by these."""
    rank, n = place()
    parts = torch.cat([k, v], -1)
    out = logs = None
    for step in range(n):
        source = (rank - step) % n
        keys, values = parts.chunk(2, -1)
        scores = torch.einsum("hqd,hkd->hqk", q, keys) / q.shape[-1] ** 0.5
        if causal and source == rank:
            scores = scores + torch.full(scores.shape[1:], -torch.inf, dtype=q.dtype).triu(1)
        log = scores.logsumexp(-1, keepdim=True)
        if causal and source > rank:
            log = log * 0 - 1e9  # weighs nothing, and stays in the graph
        mine = scores.softmax(-1) @ values
        if out is None:
            out, logs = mine, log
        else:
            both = torch.logaddexp(logs, log)
            out, logs = out * (logs - both).exp() + mine * (log - both).exp(), both
        if step + 1 < n:
            parts = shift(parts, lengths[source - 1])
    return out


def _wrong(**parts):
    return lambda *given, **options: _attend(*given, **options, **parts)


exercise.mistake("the scores are not divided by √d", hint="softmax(q kᵀ / √d).")(_wrong(scale=lambda q: 1.0))
exercise.mistake("the scores are divided by d", hint="By its root.")(_wrong(scale=lambda q: 1 / q.shape[-1]))
exercise.mistake(
    "each block gets a softmax of its own, and the blocks are averaged",
    hint="One softmax over all keys: add up numerators and denominators, and divide at the end.",
)(_wrong(divide="each"))
exercise.mistake(
    "what was added up before is not rescaled when a larger score appears",
    hint="Old terms were taken relative to the old maximum: times exp(old - new).",
)(_wrong(rescale=()))
exercise.mistake(
    "only the weighted sum of the values is rescaled when a larger score appears, not the sum of the weights",
    hint="Both sums were taken relative to the old maximum: both times exp(old - new).",
)(_wrong(rescale=("out",)))
exercise.mistake(
    "only the sum of the weights is rescaled when a larger score appears, not the weighted sum of the values",
    hint="Both sums were taken relative to the old maximum: both times exp(old - new).",
)(_wrong(rescale=("total",)))
exercise.mistake("the causal mask has no effect", hint="A query sees keys up to its own place in the whole sequence.")(
    lambda *given, causal=False: _attend(*given)
)
exercise.mistake("the mask counts places within the blocks", hint="Query i of rank r stands at sum(lengths[:r]) + i.")(
    lambda q, k, v, lengths, shift, causal=False: _attend(
        q,
        k,
        v,
        lengths,
        shift,
        causal,
        hidden=lambda rows, cols, source: cols - cols.min() > rows - rows.min(),
    )
)
exercise.mistake(
    "blocks are masked as a whole, also one's own not at all", hint="Within the own block the mask is a triangle."
)(
    lambda q, k, v, lengths, shift, causal=False: _attend(
        q,
        k,
        v,
        lengths,
        shift,
        causal,
        hidden=lambda rows, cols, source: (cols > rows) & (source != dist.get_rank()),
    )
)
exercise.mistake("the last block is left out", hint="n blocks, n - 1 shifts: also what comes last is looked at.")(
    _wrong(steps=-1)
)
exercise.mistake("keys and values make a whole turn, back to where they began", hint="n - 1 shifts bring all blocks.")(
    lambda q, k, v, lengths, shift, causal=False: _attend(*_turned(q, k, v, lengths, shift), lengths, shift, causal)
)


def _turned(q, k, v, lengths, shift):
    rank, n = place()
    for step in range(n):
        rows = lengths[(rank - step - 1) % n]
        k, v = shift(k, rows), shift(v, rows)
    return q, k, v


exercise.mistake(
    "the mask takes each block that comes for the one of another rank, as if blocks came from the right",
    hint="shift() gives what comes from the left: in step s the block of rank - s.",
)(_wrong(owner=lambda rank, step: rank + step))
exercise.mistake(
    "places are counted as if all blocks were as long as the own", hint="Block r begins at sum(lengths[:r])."
)(_wrong(start=lambda lengths, r, own: r * own))
exercise.mistake("a query sees one key more than those up to its own place", hint="Keys up to its own place, no more.")(
    _wrong(hidden=lambda rows, cols, source: cols > rows + 1)
)
exercise.mistake("the own block is the only one that is looked at", hint="Every query wants all keys: n - 1 shifts.")(
    lambda q, k, v, lengths, shift, causal=False: _attend(q, k, v, lengths, shift, causal, steps=1 - len(lengths))
)
exercise.mistake(
    "the weighted sum of the values is never divided by the sum of the weights",
    hint="The two sums are a softmax's numerator and denominator.",
)(_wrong(divide="never"))
exercise.mistake(
    "the sums are divided after every block, and what was divided is added to the next one's",
    hint="Divide once, after the last block: till then both sums stay sums.",
)(_wrong(divide="again"))
exercise.mistake(
    "keys and values that come round the ring are cut off from the graph",
    hint="Their gradients go back through shift() to the ranks that they came from: no detach().",
)(
    lambda q, k, v, lengths, shift, causal=False: _attend(
        q, k, v, lengths, lambda block, rows: shift(block.detach(), rows), causal
    )
)
exercise.mistake("the result is cut off from the graph", hint="It is trained through: no detach(), no no_grad().")(
    lambda *given, **options: _attend(*given, **options).detach()
)


@exercise.mistake(
    "all keys and values are put together before the softmax",
    hint="Right numbers, and as much memory as one GPU without the ring. Look at one block at a time.",
)
def put_together(q, k, v, lengths, shift, causal=False):
    rank, n = place()
    ks, vs = {rank: k}, {rank: v}
    for step in range(n - 1):
        source = (rank - step - 1) % n
        k, v = shift(k, lengths[source]), shift(v, lengths[source])
        ks[source], vs[source] = k, v
    keys, values = (torch.cat([held[r] for r in range(n)], 1) for held in (ks, vs))
    scores = q @ keys.transpose(1, 2) * q.shape[-1] ** -0.5
    if causal:
        rows = torch.arange(q.shape[1])[:, None] + sum(lengths[:rank])
        scores = scores.masked_fill(torch.arange(keys.shape[1]) > rows, -torch.inf)
    return scores.softmax(-1) @ values


@exercise.mistake(
    "a block that is masked is left out of the graph",
    hint="Its sender waits for a gradient in the backward pass. Let it have zeros: mask its scores with -inf.",
    hangs=True,
)
def skips_blocks(q, k, v, lengths, shift, causal=False):
    rank, n = place()
    if not causal:
        return _attend(q, k, v, lengths, shift)
    seen, own = [(k, v)], q @ k.transpose(1, 2)
    for step in range(n - 1):
        source = (rank - step - 1) % n
        k, v = shift(k, lengths[source]), shift(v, lengths[source])
        if source < rank:
            seen.append((k, v))
    return sum(q @ k.transpose(1, 2) @ v for k, v in seen) + own.sum()
