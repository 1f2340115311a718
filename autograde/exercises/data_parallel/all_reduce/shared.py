"""What exercises of the chapter all_reduce share."""

from __future__ import annotations

import re

import torch
import torch.distributed as dist

from autograde.exercise import PerRank
from autograde.exercises.data_parallel.shared import place
from autograde.judging.comparing import compare, tensors


def swap(out, size, to=None, source=None):
    """Send `out` to the right neighbor while `size` numbers come from the left one."""
    rank, n = place()
    came = torch.empty(size, dtype=out.dtype)
    sending = dist.isend(out.contiguous(), (rank + 1) % n if to is None else to)
    dist.recv(came, (rank - 1) % n if source is None else source)
    sending.wait()
    return came


def gather_pieces(chunk, sizes, swap=swap, shift=0, own_again=False, extra=0, buffer=None):
    """Right as it stands: the chunks of all ranks, in their order, as a list.

    A mistake stores a chunk `shift` places off, sends its `own_again`, makes `extra` steps, or reuses one `buffer`.
    """
    rank, n = place()
    pieces = [chunk.new_zeros(size) for size in sizes]
    pieces[rank] = passing = chunk
    for step in range(n - 1 + extra * (n > 1)):
        source = (rank - 1 - step) % n
        passing = swap(chunk if own_again else passing, sizes[source] if not own_again else sizes[rank - 1])
        if buffer is not None:
            buffer[: len(passing)] = passing
            passing = buffer[: len(passing)]
        pieces[(source + shift) % n] = passing
    return pieces


def on_own_part(function, parts, *args, **kwargs):
    """Rank r works on `parts[r]`, a view: a change in place shows in the inputs."""
    import torch.distributed as dist

    return function(parts[dist.get_rank()], *args, **kwargs)


def swap_in_turns(out, size):
    """As `swap`, with blocking calls: odd ranks receive first."""
    rank, n = place()
    came = torch.empty(size, dtype=out.dtype)
    if rank % 2:
        dist.recv(came, (rank - 1) % n)
    dist.send(out.contiguous(), (rank + 1) % n)
    if not rank % 2:
        dist.recv(came, (rank - 1) % n)
    return came


def swap_both_send_first(out, size):
    rank, n = place()
    came = torch.empty(size, dtype=out.dtype)
    dist.send(out.contiguous(), (rank + 1) % n)
    dist.recv(came, (rank - 1) % n)
    return came


def copies(x):
    return [chunk.clone() for chunk in x.tensor_split(dist.get_world_size())]


def scatter_chunks(x, swap=swap, chunks=None, late=1, partial=True, extra=0, own=1, came=1):
    """Right as it stands. `late`: which chunk leaves first, counted back from the rank's own number.

    The others say what a mistake does: sends only what it came with (not `partial`), makes `extra` steps, adds up its
    `own` numbers and those that `came` other than once.
    """
    rank, n = place()
    mine = copies(x) if chunks is None else chunks
    fresh = [chunk.clone() for chunk in mine]
    for step in range(n - 1 + extra * (n > 1)):
        out, into = (rank - late - step) % n, (rank - late - 1 - step) % n
        arrived = swap((mine if partial else fresh)[out], len(mine[into]))
        mine[into] *= own
        mine[into] += came * arrived
    return mine[rank]


def sum_at_rank_0(x):
    total, came = x.clone(), torch.empty_like(x)
    for other in range(1, dist.get_world_size()):
        dist.recv(came, other)
        total += came
    return total


def collectives(out):
    """What a solution calls besides sends and receives, as a sentence; empty if nothing."""
    other = {m.op for messages in getattr(out, "traffic", ()) for m in messages} - {"send", "recv"}
    return f"calls {', '.join(sorted(other))}, where only sends and receives are allowed" if other else ""


def sent_by(messages):
    return [m for m in messages if m.op == "send" and m.bytes]


def by_hand(holds):
    """A law that nothing keeps which sends nothing, or leaves the work to the library's collectives."""

    def law(out, one, call):
        if told := collectives(out):
            return told
        if not all(isinstance(value, torch.Tensor) for value in out):
            return "not every rank returns a tensor"
        if len(out) > 1 and not any(map(sent_by, out.traffic)):
            return "nobody sends anything"
        return holds(out, one, call)

    return law


def values(expected, got, one):
    if not isinstance(got, list):
        return "is not what was expected"
    given = [x for x in tensors(list(one.args)) if x.numel()]
    scale = max([1.0, *(float(x.abs().max()) for x in given)])
    fine = 1e-6 if any(x.dtype == torch.float64 for x in given) else 1.0  # whoever goes through float32 loses digits
    mismatch = compare(list(expected), list(got), rtol=1e-5 * fine, atol=2e-6 * scale * fine)
    return re.sub(r"item (\d+) of the result\b", r"rank \1's result", mismatch.message) if mismatch else True


def who_sends_what(out):
    return [sorted((m.op, m.bytes, -1 if m.peer is None else m.peer) for m in sent if m.bytes) for sent in out.traffic]


def judged(oracle):
    """`agrees` of an exercise: values, and nothing but sends and receives.

    A mistake that gives the right values is recognized by its messages; any other by its values alone.
    """

    def agrees(expected, got, one):
        if told := collectives(got):
            return told
        verdict = values(expected, got, one)
        if verdict is not True or not isinstance(expected, PerRank):  # the right answer comes as a plain list
            return verdict
        if values(oracle(*one.args, **one.kwargs), expected, one) is not True:
            return True
        return who_sends_what(expected) == who_sends_what(got)

    return agrees


@by_hand
def only_neighbors(out, one, call):
    n = len(out)
    for r, messages in enumerate(out.traffic):
        for m in messages:
            right = (r + 1) % n if m.op == "send" else (r - 1) % n
            if m.bytes and m.peer not in (right, None):
                told = f"sends to rank {m.peer}" if m.op == "send" else f"receives from rank {m.peer}"
                return f"{n} ranks: rank {r} {told}"
    return True


def shares(lengths, left_out):
    """A law: rank r sends every chunk once, but the one with number left_out(r)."""

    @by_hand
    def law(out, one, call):
        n, sizes = len(out), lengths(one)
        for r, messages in enumerate(out.traffic):
            need = sorted(size for c, size in enumerate(sizes) if c != left_out(r, n) and size)
            sent = sorted(m.bytes for m in sent_by(messages))
            if sent != need:
                return f"{one.label}: rank {r} sends messages of {sent or 'no'} bytes, and its share is {need}"
        return True

    return law


@by_hand
def keeps_dtype(out, one, call):
    kind = one.args[0][0].dtype
    return all(value.dtype == kind for value in out) or f"{kind} went in, {out[0].dtype} came out"
