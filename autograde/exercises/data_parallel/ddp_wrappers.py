"""Right and wrong wrappers for the exercise `DDP` of 03_data_parallel/03_ddp."""

from __future__ import annotations

import contextlib

import torch
import torch.distributed as dist
from torch import nn

from autograde.exercises.data_parallel.ddp_mistakes import buckets_in_a_loop, grad_or_zeros, trainable


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


class SumsGradients(Bucketed):
    def _store(self, bucket, flat):
        super()._store(bucket, flat * self.world)


class DividesTwice(Bucketed):
    def _store(self, bucket, flat):
        super()._store(bucket, flat / self.world)


class NeverStores(Bucketed):
    def _store(self, bucket, flat):
        pass


class NoBroadcast(Bucketed):
    def _to_broadcast(self):
        return []


class ForgetsBuffers(Bucketed):
    def _to_broadcast(self):
        return list(self.module.parameters())


class LaunchesOutOfOrder(Bucketed):
    def _ready(self, p):
        self.missing[self.home[p]] -= self.synced
        if self.synced and self.missing[self.home[p]] == 0:
            self._launch(self.home[p])


class WaitsAtOnce(Bucketed):
    def _launch(self, b):
        super()._launch(b)
        self.flying[b][1].wait()


class ReducesAtTheEnd(Bucketed):
    def _ready(self, p):
        pass


class OneMessageAParameter(Bucketed):
    def _assign(self, sizes, cap):
        return [[i] for i in range(len(sizes))]


class ForgetsToReset(Bucketed):
    """The counters stay as the first step left them, so later steps store the first one's gradients again."""

    def _reset(self):
        if not hasattr(self, "missing"):
            super()._reset()


class IgnoresNoSync(Bucketed):
    """Reduces after every micro-batch, although no_sync() asks it not to."""

    @contextlib.contextmanager
    def no_sync(self):
        yield
        self.finish()


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
