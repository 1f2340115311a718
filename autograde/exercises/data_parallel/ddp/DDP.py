"""`DDP`: Data parallelism: after finish(), every rank holds the gradients of the whole batch."""

from __future__ import annotations

import contextlib

import torch
import torch.distributed as dist
from torch import nn

from autograde.exercise import Draft, case, same
from autograde.exercises.data_parallel.ddp.shared import buckets_in_a_loop, grad_or_zeros, trainable
from autograde.exercises.data_parallel.shared import agree_by_entry, bytes_of
from autograde.exercises.shared import pick, randn

exercise = Draft(
    "DDP",
    points=6,
    ranks=True,
    forbid=["torch.nn.parallel.distributed"],
    limit=4.0,
    dtypes=[torch.float64],
    hints=[
        "Three moments: at the start (broadcast), when a gradient is ready (count, and start what is full), and in "
        "finish() (wait, and hand out the means).",
        "Keep a counter of missing gradients for each bucket, and a list of what is under way. In the hook: count "
        "down, then, while the next bucket in order has nothing missing, start it with async_op=True.",
        "To start bucket b: flat = torch.cat([p.grad.flatten() …]) (zeros where .grad is None), work = "
        "dist.all_reduce(flat, async_op=True), and keep (flat, work). In finish(): start the rest, wait for each work, "
        "divide by the number of ranks, cut with flat.split(sizes), view_as(p), and reset. no_sync() flips a flag that "
        "the hook looks at.",
    ],
)


def _net(layers, start, frozen=(), tied=()):
    """The model of a case in one process: modules, the tensors that training or a broadcast changes."""
    net = nn.ModuleList(getattr(nn, kind)(*sizes) for kind, *sizes in layers).eval()
    for a, b in tied:
        net[b].weight = net[a].weight
    for name in frozen:
        net.get_parameter(name).requires_grad_(False)
    if start is not None:
        net.to(start.dtype)  # this makes new buffers
    tensors = [*net.parameters(), *(b for b in net.buffers() if b.is_floating_point())]
    if start is not None:
        for t, values in zip(tensors, start.split([t.numel() for t in tensors]), strict=True):
            t.data.copy_(values.view_as(t))
    return net, tensors


@exercise.cases
def ddp_cases(g):
    def some(world, layers, bucket_bytes, label, steps=1, micro=1, rows=4, classes=None, **options):
        tied = options.get("tied", ())
        size = sum(t.numel() for t in _net(layers, None, tied=tied)[1])
        starts = torch.rand(world, size, generator=g) * 0.8 + 0.1
        shape = (steps, world, micro, rows)
        x = torch.randint(classes, shape, generator=g) if classes else randn(g, *shape, layers[0][1])
        y = randn(g, *shape, classes or layers[-1][2])
        return case(layers, starts, x, y, bucket_bytes, ranks=world, label=label, **options)

    d, h = pick(g, 2, 4), pick(g, 5, 7)
    mlp = [["Linear", d, h], ["Tanh"], ["Linear", h, d]]
    normed = [["Linear", d, h], ["BatchNorm1d", h], ["Tanh"], ["Linear", h, d]]
    heads = [["Linear", d, h], ["Linear", h, d], ["Linear", h, d]]
    tied = [["Embedding", h, d], ["Tanh"], ["Linear", d, h]]
    yield some(2, mlp, 4 * (d + 1), "a small MLP, several buckets, two steps", steps=2)
    yield some(2, mlp, 4 * h, "a forward pass with a keyword, in training mode", gain=0.5)
    yield some(2, normed, 2**20, "a model with buffers, one large bucket")
    yield some(2, mlp, 64, "three micro-batches under no_sync", micro=3, rows=2)
    yield some(2, heads, 1, "each rank uses another head", paths=[[0, 1], [0, 2]])
    yield some(3, normed, 4 * h, "three ranks, two steps of two micro-batches", steps=2, micro=2)
    yield some(2, tied, 4 * h, "an embedding tied to the output layer", classes=h, tied=[[0, 2]])
    yield some(3, mlp, 4, "frozen parameters", frozen=["0.weight", "2.bias"])


def _flat(tensors):
    return torch.cat([t.detach().flatten() for t in tensors])


@exercise.oracle
def whole_batch(layers, starts, x, y, bucket_bytes, frozen=(), tied=(), paths=None, gain=None):
    """One process, rank 0's start, every rank's examples at once."""
    net, tensors = _net(layers, starts[0], frozen, tied)
    params, world = list(net.parameters()), len(starts)
    for inputs, targets in zip(x, y, strict=True):
        net.zero_grad()
        for r in range(world):
            hidden = inputs[r].flatten(0, 1) * (gain or 1)
            for i in range(len(net)) if paths is None else paths[r]:
                hidden = net[i](hidden)
            ((hidden - targets[r].flatten(0, 1)).square().mean() / world).backward()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
        with torch.no_grad():
            for p, g in zip(params, gradients, strict=True):
                p -= 0.1 * g
    told = {"mode left alone": True}
    return [{"start": starts[0], "gradient": _flat(gradients), "end": _flat(tensors), **told}] * world


@exercise.probe
def train_on_rank(wrapper, layers, starts, x, y, bucket_bytes, frozen=(), tied=(), paths=None, gain=None):
    """Wrap a small model and train it for some steps of gradient descent.

    `layers` lists the model, as in [["Linear", 3, 4], ["Tanh"]]; `starts[r]` fills rank r's parameters and buffers;
    `x` and `y` are [steps, ranks, micro-batches, rows, …]; `paths[r]` names the layers that rank r goes through; a
    `gain` is handed on by keyword, and then the model is in training mode.
    """
    import contextlib

    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.utils._pytree import tree_leaves

    from labkit.modes import Listener

    class Net(nn.Sequential):
        def forward(self, x, path=None, *, gain=1):
            x = x * gain
            for i in range(len(self)) if path is None else path:
                x = self[i](x)
            return x

    log = []  # "gradient", "wait", "broadcast", and a number of bytes for each all-reduce, in the order of time

    class Listening(Listener):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.namespace == "c10d" and "broadcast" in func._schema.name:
                log.append("broadcast")
            if "allreduce" in func._schema.name.replace("_", ""):
                tensors = [t for t in tree_leaves(args[:1]) if isinstance(t, torch.Tensor)]
                log.append(sum(t.numel() * t.element_size() for t in tensors))
            return func(*args, **(kwargs or {}))

    @contextlib.contextmanager
    def listening():
        wait = dist.Work.wait
        dist.Work.wait = lambda work, *args, **kwargs: (log.append("wait"), wait(work, *args, **kwargs))[1]
        try:
            with Listening():
                yield
        finally:
            dist.Work.wait = wait

    def taken():
        events, log[:] = list(log), []
        return events

    def flat(tensors):
        return torch.cat([t.detach().flatten() for t in tensors])

    rank, (steps, _, micro_batches) = dist.get_rank(), x.shape[:3]
    net = Net(*[getattr(nn, kind)(*sizes) for kind, *sizes in layers]).to(starts.dtype).train(gain is not None)
    for a, b in tied:
        net[b].weight = net[a].weight
    for name in frozen:
        net.get_parameter(name).requires_grad_(False)
    params = list(net.parameters())
    tensors = params + [b for b in net.buffers() if b.is_floating_point()]
    for t, values in zip(tensors, starts[rank].split([t.numel() for t in tensors]), strict=True):
        t.data.copy_(values.view_as(t))
    if normed := [module for module in net if isinstance(module, nn.BatchNorm1d)]:  # buffers of whole numbers, too
        normed[0].num_batches_tracked.fill_(3 + rank)
        net.register_buffer("unsaved", torch.tensor([5 + rank]), persistent=False)
    counts = [b for b in net.buffers() if not b.is_floating_point()]
    for p in params:
        if p.requires_grad:
            p.register_post_accumulate_grad_hook(lambda p: log.append("gradient"))
    path, options = [] if paths is None else [paths[rank]], {} if gain is None else {"gain": gain}
    result = {"sent": [], "early": [], "waited": [], "inside no_sync": 0, "sent again": False, "waits": []}
    with listening():
        ddp = wrapper(net, bucket_bytes=bucket_bytes)
        result |= {"start": flat(tensors), "counts": [int(b) for b in counts]}
        for step in range(steps):
            for p in params:
                p.grad = None
            for m in range(micro_batches):
                last = m == micro_batches - 1
                taken()
                with contextlib.nullcontext() if last else ddp.no_sync():
                    loss = (ddp(x[step, rank, m], *path, **options) - y[step, rank, m]).square().mean() / micro_batches
                    loss.backward()
                backward = taken()
                result["inside no_sync"] += 0 if last else sum(isinstance(e, int) for e in backward)
            ddp.finish()
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in params]
            final = len(backward) - backward[::-1].index("gradient") if "gradient" in backward else 0
            result["early"].append(sum(isinstance(e, int) for e in backward[:final]))
            first = backward.index("gradient") if "gradient" in backward else 0
            result["waited"].append("wait" in backward[first:])
            events = backward + taken()
            result["sent"].append([e for e in events if isinstance(e, int)])
            result["sent again"] |= "broadcast" in events
            result["waits"].append("wait" in events)
            with torch.no_grad():
                for p, g in zip(params, gradients, strict=True):
                    p -= 0.1 * g
    left = all(module.training is (gain is not None) for module in net.modules())
    return result | {"gradient": flat(gradients), "end": flat(tensors), "mode left alone": left}


exercise.agrees(agree_by_entry(["start", "gradient", "end"], whole_batch))


@exercise.law("Every rank starts from rank 0's parameters and buffers")
def _starts_from_rank_0(out, one, call):
    return all(torch.equal(r["start"], one.args[1][0]) and r["counts"] == [5, 3][: len(r["counts"])] for r in out)


def _buckets(one):
    """The bytes of each bucket, by torch's own rule on the trainable parameters in reverse."""
    options = {k: v for k, v in one.kwargs.items() if k in ("frozen", "tied")}
    params = list(_net(one.args[0], one.args[1][0], **options)[0].parameters())
    params = [p for p in params if p.requires_grad][::-1]
    groups = dist._compute_bucket_assignment_by_size(params, [one.args[4]])[0]
    return [sum(bytes_of(params[i] for i in group)) for group in groups]


@exercise.law("One all-reduce a bucket in every step, in order")
def _one_message_a_bucket(out, one, call):
    need = _buckets(one)
    for sent in (sent for r in out for sent in r["sent"]):
        if sent != need:
            return f"{one.label}: all-reduces of {sent} bytes, and the buckets are {need}"
    return True


@exercise.law("Nothing is called but broadcast at the start and all_reduce")
def _nothing_else(out, one, call):
    other = {m.op for messages in out.traffic for m in messages} - {"broadcast", "all_reduce"}
    if other:
        return f"calls {', '.join(sorted(other))} as well"
    return not any(r["sent again"] for r in out) or "broadcasts in a step, where everybody has the same already"


@exercise.law("The first all-reduce starts while the backward pass still runs")
def _overlaps(out, one, call):
    if len(_buckets(one)) < 2 or one.kwargs.get("paths"):
        return None
    return all(min(r["early"]) > 0 for r in out) or "no all-reduce starts before the last gradient is there"


@exercise.law("The backward pass never waits for an all-reduce")
def _never_waits(out, one, call):
    return not any(any(r["waited"]) for r in out) and all(any(r["sent"]) for r in out)


@exercise.law("finish() waits for the all-reduces")
def _waits_in_the_end(out, one, call):
    """Who waits in a way that isn't seen has the right gradients."""
    if all(all(r["waits"]) for r in out):
        return True
    right = whole_batch(*one.args, **one.kwargs)[0]["gradient"]
    if all(same(right, r["gradient"]) is True for r in out):
        return True
    return f"{one.label}: no work is waited for, so that the buckets are read before the sums are there"


@exercise.law("Nothing is sent inside no_sync()")
def _silent_in_no_sync(out, one, call):
    if one.args[2].shape[2] == 1:
        return None
    if not any(any(r["sent"]) for r in out):
        return "nothing is sent outside either"
    return not any(r["inside no_sync"] for r in out) or "an all-reduce starts inside no_sync()"


@exercise.alternative
class Bucketed(nn.Module):
    """Right, in small steps that the mistakes below replace one at a time."""

    def __init__(self, module, bucket_bytes=25 * 2**20):
        super().__init__()
        self.module = module
        self.world = dist.get_world_size()
        for tensor in self._to_broadcast():
            dist.broadcast(tensor.detach(), src=0)
        params = trainable(module)[::-1]
        groups = self._assign([p.numel() * p.element_size() for p in params], bucket_bytes)
        self.buckets = [[params[i] for i in group] for group in groups]
        self.home = {p: b for b, bucket in enumerate(self.buckets) for p in bucket}
        self.synced = True
        self._reset()
        self._register(params)

    def _to_broadcast(self):
        return [*self.module.parameters(), *self.module.buffers()]

    def _assign(self, sizes, cap):
        return buckets_in_a_loop(sizes, cap)

    def _register(self, params):
        for p in params:
            p.register_post_accumulate_grad_hook(self._ready)

    def _reset(self):
        self.missing = [len(bucket) for bucket in self.buckets]
        self.flying = {}

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)

    def _ready(self, p):
        if not self.synced:
            return
        self.missing[self.home[p]] -= 1
        while len(self.flying) < len(self.buckets) and self.missing[len(self.flying)] <= 0:
            self._launch(len(self.flying))

    def _launch(self, b):
        flat = torch.cat([grad_or_zeros(p).flatten() for p in self.buckets[b]])
        self.flying[b] = flat, dist.all_reduce(flat, async_op=True)

    def finish(self):
        for b in range(len(self.buckets)):
            if b not in self.flying:
                self._launch(b)
        for b, (flat, work) in self.flying.items():
            work.wait()
            self._store(self.buckets[b], flat)
        self._reset()

    def _store(self, bucket, flat):
        parts = (flat / self.world).split([p.numel() for p in bucket])
        for p, part in zip(bucket, parts, strict=True):
            p.grad = part.view_as(p).clone()

    @contextlib.contextmanager
    def no_sync(self):
        self.synced = False
        try:
            yield
        finally:
            self.synced = True


@exercise.mistake(
    "the gradients are summed over the ranks and never divided",
    hint="all_reduce adds. The gradient of a mean over the whole batch is the mean of the ranks' gradients.",
)
class SumsGradients(Bucketed):
    def _store(self, bucket, flat):
        super()._store(bucket, flat * self.world)


@exercise.mistake(
    "the gradients are divided by the number of ranks twice", hint="Divide before the all-reduce or after it, not both."
)
class DividesTwice(Bucketed):
    def _store(self, bucket, flat):
        super()._store(bucket, flat / self.world)


@exercise.mistake(
    "the means stay in the buckets and never reach .grad",
    hint="The flat bucket is a copy: cut it up again and put the pieces into the parameters' .grad.",
)
class NeverStores(Bucketed):
    def _store(self, bucket, flat):
        pass


@exercise.mistake(
    "nothing is broadcast at the start, so that every rank trains a model of its own",
    hint="Equal gradients keep replicas equal only if they start equal. Copy rank 0's parameters to all.",
)
class NoBroadcast(Bucketed):
    def _to_broadcast(self):
        return []


@exercise.mistake(
    "only the parameters are broadcast, and buffers differ from rank to rank",
    hint="BatchNorm's running mean and variance are buffers: module.buffers().",
)
class ForgetsBuffers(Bucketed):
    def _to_broadcast(self):
        return list(self.module.parameters())


@exercise.mistake(
    "buffers of whole numbers, such as BatchNorm's counter, are not broadcast",
    hint="All of module.buffers(), whatever their dtype.",
)
class ForgetsCounters(Bucketed):
    def _to_broadcast(self):
        return [t for t in super()._to_broadcast() if t.is_floating_point()]


@exercise.mistake(
    "what state_dict() lists is broadcast, in which buffers that aren't saved are missing",
    hint="module.buffers() has all of them, those with persistent=False as well.",
)
class BroadcastsWhatIsSaved(Bucketed):
    def _to_broadcast(self):
        return list(self.module.state_dict().values())


@exercise.mistake(
    "buffers are broadcast again before a forward pass, as torch's DDP does",
    hint="Once, in __init__. This DDP leaves them to each rank afterwards.",
)
class BroadcastsBuffersAgain(Bucketed):
    def forward(self, *args, **kwargs):
        for buffer in self.module.buffers():
            dist.broadcast(buffer, src=0)
        return super().forward(*args, **kwargs)


@exercise.mistake(
    "each rank sends its buckets in the order in which they fill up there, and different buckets get added",
    hint="Collectives are matched by order alone. Start bucket i only after bucket i - 1, on every rank.",
)
class LaunchesOutOfOrder(Bucketed):
    def _ready(self, p):
        self.missing[self.home[p]] -= self.synced
        if self.synced and self.missing[self.home[p]] == 0:
            self._launch(self.home[p])


@exercise.mistake(
    "the backward pass waits for each bucket before it goes on",
    hint="all_reduce(…, async_op=True) hands back a `work` at once. Keep it, and wait in finish().",
)
class WaitsAtOnce(Bucketed):
    def _launch(self, b):
        super()._launch(b)
        self.flying[b][1].wait()


@exercise.mistake(
    "all buckets are sent after the backward pass, so that nothing overlaps",
    hint="register_post_accumulate_grad_hook calls you as soon as a gradient is there. Start full buckets then.",
)
class ReducesAtTheEnd(Bucketed):
    def _ready(self, p):
        pass


@exercise.mistake(
    "every parameter is sent by itself", hint="Copy the gradients of one bucket into one flat tensor, and send that."
)
class OneMessageAParameter(Bucketed):
    def _assign(self, sizes, cap):
        return [[i] for i in range(len(sizes))]


@exercise.mistake("keywords aren't handed on to the module", hint="ddp(*args, **kwargs) runs module(*args, **kwargs).")
class DropsKeywords(Bucketed):
    def forward(self, *args, **kwargs):
        return self.module(*args)


@exercise.mistake("the module is put into training mode", hint="The caller has chosen the mode: leave it.")
class PutsIntoTraining(Bucketed):
    def __init__(self, module, bucket_bytes=25 * 2**20):
        super().__init__(module.train(), bucket_bytes)


@exercise.mistake(
    "the buckets are filled from the first layer on", hint="In reverse order: the last layer's gradients come first."
)
class FillsFromTheFirstLayer(Bucketed):
    def _assign(self, sizes, cap):
        return [[len(sizes) - 1 - i for i in bucket] for bucket in super()._assign(sizes[::-1], cap)]


@exercise.mistake("the module is put into evaluation mode", hint="The caller has chosen the mode: leave it.")
class PutsIntoEvaluation(Bucketed):
    def __init__(self, module, bucket_bytes=25 * 2**20):
        super().__init__(module.eval(), bucket_bytes)


@exercise.mistake(
    "the ranks meet at a barrier in every step", hint="Waiting for the all-reduces is enough: nobody is ahead of them."
)
class MeetsAtABarrier(Bucketed):
    def finish(self):
        super().finish()
        dist.barrier()


@exercise.mistake(
    "the parameters are averaged after the step, instead of the gradients before it",
    hint="finish() comes before the step. Steps with different gradients, averaged, are not a step of Adam, say.",
)
class AveragesParameters(Bucketed):
    def _ready(self, p):
        pass

    def _launch(self, b):
        flat = torch.cat([p.detach().flatten() for p in self.buckets[b]])
        self.flying[b] = flat, dist.all_reduce(flat, async_op=True)

    def _store(self, bucket, flat):
        parts = (flat / self.world).split([p.numel() for p in bucket])
        for p, part in zip(bucket, parts, strict=True):
            p.data.copy_(part.view_as(p))


@exercise.mistake(
    "the second step still finds the buckets of the first",
    hint="At the end of finish() set the counters back and forget the works.",
)
class ForgetsToReset(Bucketed):
    """The counters stay as the first step left them, so later steps store the first one's gradients again."""

    def _reset(self):
        if not hasattr(self, "missing"):
            super()._reset()


@exercise.mistake(
    "the counters of the first step are not set back, so that buckets leave before their gradients are there",
    hint="At the end of finish() every bucket has all its gradients missing again.",
)
class KeepsCounters(Bucketed):
    def _reset(self):
        if not hasattr(self, "missing"):
            super()._reset()
        self.flying = {}


@exercise.mistake(
    "no_sync() changes nothing: the first micro-batch's gradients leave, and those of later ones stay behind",
    hint="The hook has to know that it is inside no_sync(): set a flag there, and put it back afterwards.",
)
class SendsFirstMicroBatch(Bucketed):
    @contextlib.contextmanager
    def no_sync(self):
        yield


@exercise.mistake(
    "finish() doesn't wait for the all-reduces",
    hint="With async_op=True the sum is there only after work.wait(). Wait for each work before you read its bucket.",
)
class NeverWaits(Bucketed):
    def finish(self):
        self.kept = self.flying  # else a work that goes out of scope would wait
        for b in range(len(self.buckets)):
            if b not in self.flying:
                self._launch(b)
        for b, (flat, _) in self.flying.items():
            self._store(self.buckets[b], flat)
        self._reset()


@exercise.mistake(
    "the mean is added to this rank's own gradient instead of taking its place",
    hint="p.grad = mean: what this rank had is part of the mean already.",
)
class AddsToOwn(Bucketed):
    def _store(self, bucket, flat):
        before = [grad_or_zeros(p) for p in bucket]
        super()._store(bucket, flat)
        for p, own in zip(bucket, before, strict=True):
            p.grad += own


@exercise.mistake(
    "where this rank has no gradient, the others' mean is left out",
    hint="A missing gradient counts as zeros, and after finish() every trainable parameter has the mean.",
)
class LeavesNone(Bucketed):
    def _store(self, bucket, flat):
        missing = [p for p in bucket if p.grad is None]
        super()._store(bucket, flat)
        for p in missing:
            p.grad = None


@exercise.mistake(
    "the gradients are averaged after every micro-batch, also inside no_sync()",
    hint="Inside no_sync() a hook has nothing to do: autograd already adds to .grad.",
)
class IgnoresNoSync(Bucketed):
    """Reduces after every micro-batch, although no_sync() asks it not to."""

    @contextlib.contextmanager
    def no_sync(self):
        yield
        self.finish()


@exercise.mistake(
    "only the last micro-batch's gradient is averaged, and what had piled up before stays local",
    hint="Send p.grad, which holds the sum of all micro-batches, not the gradient that the last one adds.",
)
class ReducesLastMicroBatch(Bucketed):
    """Sends the gradient of the last backward pass only, and adds it to what had piled up locally."""

    def _register(self, params):
        self.fresh = {}
        for p in params:
            p.register_hook(lambda grad, p=p: self.fresh.__setitem__(p, grad.clone()))
        super()._register(params)

    def _launch(self, b):
        fresh = [self.fresh.get(p, torch.zeros_like(p)).flatten() for p in self.buckets[b]]
        self.before = getattr(self, "before", {})
        for p in self.buckets[b]:
            self.before[p] = grad_or_zeros(p) - self.fresh.get(p, torch.zeros_like(p))
        flat = torch.cat(fresh)
        self.flying[b] = flat, dist.all_reduce(flat, async_op=True)

    def _store(self, bucket, flat):
        super()._store(bucket, flat)
        for p in bucket:
            p.grad += self.before[p]
            self.fresh.pop(p, None)


@exercise.alternative
class Coalesced(Bucketed):
    """Right: the buffers and parameters travel in one flat broadcast, and the gradients are views of their bucket."""

    def _to_broadcast(self):
        tensors = [t for t in super()._to_broadcast() if t.is_floating_point()]
        flat = torch.cat([t.detach().flatten() for t in tensors])
        dist.broadcast(flat, src=0)
        for t, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            t.data.copy_(part.view_as(t))
        return [t for t in super()._to_broadcast() if not t.is_floating_point()]

    def _store(self, bucket, flat):
        flat /= self.world
        for p, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            p.grad = part.view_as(p)
