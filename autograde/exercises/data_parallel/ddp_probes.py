"""What runs on every rank when the exercises of 03_data_parallel/03_ddp are checked.

Each probe stands alone, imports included, so that its source can be sent to wherever the learner's code runs.
"""


def average_on_rank(average_gradients, weights, grads, frozen=()):
    """Give the parameters of a model this rank's gradients, average, and look at what is there afterwards."""
    import torch.distributed as dist
    from torch import nn

    rank = dist.get_rank()
    model = nn.ParameterList([w + rank for w in weights])
    for i, p in enumerate(model):
        p.requires_grad_(i not in frozen)
        p.grad = None if grads[rank][i] is None else grads[rank][i].clone()
    average_gradients(model)
    return {"gradients": [p.grad for p in model], "parameters": [p.detach() for p in model]}


def train_on_rank(wrapper, layers, starts, x, y, bucket_bytes, frozen=(), tied=(), paths=None):
    """Wrap a small model and train it for some steps of gradient descent.

    `layers` lists the model, as in [["Linear", 3, 4], ["Tanh"]]; `starts[r]` fills rank r's parameters and buffers;
    `x` and `y` are [steps, ranks, micro-batches, rows, …]; `paths[r]` names the layers that rank r goes through.
    """
    import contextlib

    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.utils._pytree import tree_leaves

    from labkit.modes import Listener

    class Net(nn.Sequential):
        def forward(self, x, path=None):
            for i in range(len(self)) if path is None else path:
                x = self[i](x)
            return x

    log = []  # "gradient", "wait", and a number of bytes for each all-reduce, in the order of time

    class Listening(Listener):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
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
    net = Net(*[getattr(nn, kind)(*sizes) for kind, *sizes in layers]).to(starts.dtype).eval()
    for a, b in tied:
        net[b].weight = net[a].weight
    for name in frozen:
        net.get_parameter(name).requires_grad_(False)
    params = list(net.parameters())
    tensors = params + [b for b in net.buffers() if b.is_floating_point()]
    for t, values in zip(tensors, starts[rank].split([t.numel() for t in tensors]), strict=True):
        t.data.copy_(values.view_as(t))
    for p in params:
        if p.requires_grad:
            p.register_post_accumulate_grad_hook(lambda p: log.append("gradient"))
    path = [] if paths is None else [paths[rank]]
    result = {"sent": [], "early": [], "waited": [], "inside no_sync": 0}
    with listening():
        ddp = wrapper(net, bucket_bytes=bucket_bytes)
        result["start"] = flat(tensors)
        for step in range(steps):
            for p in params:
                p.grad = None
            for m in range(micro_batches):
                last = m == micro_batches - 1
                taken()
                with contextlib.nullcontext() if last else ddp.no_sync():
                    loss = (ddp(x[step, rank, m], *path) - y[step, rank, m]).square().mean() / micro_batches
                    loss.backward()
                backward = taken()
                result["inside no_sync"] += 0 if last else sum(isinstance(e, int) for e in backward)
            ddp.finish()
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in params]
            final = len(backward) - backward[::-1].index("gradient") if "gradient" in backward else 0
            result["early"].append(sum(isinstance(e, int) for e in backward[:final]))
            result["waited"].append("wait" in backward)
            result["sent"].append([e for e in backward + taken() if isinstance(e, int)])
            with torch.no_grad():
                for p, g in zip(params, gradients, strict=True):
                    p -= 0.1 * g
    return result | {"gradient": flat(gradients), "end": flat(tensors)}


def accumulate_on_rank(accumulate, weight, x, y, rows):
    """Let `accumulate` work through micro-batches of `rows` rows, on a wrapper that averages as torch's DDP does."""
    import contextlib

    import torch.distributed as dist
    from torch import nn

    passes = []

    class Averaging(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module, self.quiet, self.armed = module, False, True
            module.weight.register_post_accumulate_grad_hook(self.ready)

        def forward(self, x):
            self.armed = not self.quiet  # as in torch, the forward pass decides
            return self.module(x)

        def ready(self, p):
            if self.armed:
                dist.all_reduce(p.grad)
                p.grad /= dist.get_world_size()
            passes.append(("averaged inside no_sync" if self.quiet else "averaged") if self.armed else "local")

        @contextlib.contextmanager
        def no_sync(self):
            before, self.quiet = self.quiet, True
            try:
                yield
            finally:
                self.quiet = before

    rank = dist.get_rank()
    module = nn.Linear(*weight.shape[::-1], bias=False).to(weight.dtype)
    module.weight.data.copy_(weight)
    batches = list(zip(x[rank].split(rows), y[rank].split(rows), strict=True))
    loss = accumulate(Averaging(module), nn.functional.mse_loss, batches)
    return {"loss": loss, "gradient": module.weight.grad, "passes": passes}
