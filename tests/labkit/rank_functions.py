"""What the tests run on ranks. Apart from the tests, so that a rank imports this and not pytest."""

import os
import signal
import subprocess
import sys
import threading
import time

import torch
import torch.distributed as dist

from labkit import record_traffic


def total(start):
    x = torch.full((3,), float(dist.get_rank())) + start
    dist.all_reduce(x)
    return x


def rank_and_seed():
    return dist.get_rank(), torch.rand(1).item(), torch.get_num_threads()


def assorted():
    base = torch.arange(12.0).reshape(3, 4)
    return {
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "view": base[:, 1],
        "one number of a column": base[:1, 1],
        "none of a column": base[:0, 1],
        "transposed": base.t(),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 4),
        "bfloat16": torch.tensor([1.5], dtype=torch.bfloat16),
        "complex": torch.tensor([1 + 2j]).conj(),
        "bool": torch.tensor([True, False]),
        "list": [1, "a", None],
    }


def raise_on(rank):
    if dist.get_rank() == rank:
        raise ValueError("this rank is broken")
    dist.all_reduce(torch.ones(2))


def raise_everywhere():
    raise KeyError("missing")


def exit_on(rank, code):
    if dist.get_rank() == rank:
        os._exit(code)
    dist.all_reduce(torch.ones(2))


def kill_on(rank):
    if dist.get_rank() == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()


def both_receive():
    dist.recv(torch.zeros(3), 1 - dist.get_rank())


def mismatched():
    x = torch.zeros(10)
    if dist.get_rank():
        dist.all_reduce(x)
    else:
        dist.broadcast(x, 0)


def one_leaves():
    if dist.get_rank() == 1:
        return
    dist.barrier()


def forgets_its_send():
    """Nobody keeps what isend has given, which ends the send before it has begun."""
    x, other = torch.zeros(3), 1 - dist.get_rank()
    dist.isend(torch.ones(3), other)
    dist.barrier()  # or the other rank might have asked already
    dist.recv(x, other)


def moves(count):
    """Two ranks exchange many numbers at once; gives one of those that came."""
    x, other = torch.zeros(count), 1 - dist.get_rank()
    sent = dist.isend(torch.full((count,), float(dist.get_rank())), other)
    dist.recv(x, other)
    sent.wait()
    return x[-1].item()


def slow_partner(seconds):
    if dist.get_rank() == 0:
        time.sleep(seconds)
    dist.barrier()
    return dist.get_rank()


def helped_by_a_thread(seconds):
    """Every rank waits in the main thread until a thread of rank 0 sends."""
    rank = dist.get_rank()
    if rank == 0:
        late = threading.Timer(seconds, lambda: [dist.send(torch.ones(1), to, tag=5) for to in (1,)])
        late.start()
        x = torch.zeros(1)
        dist.recv(x, 1, tag=6)
        return x.item()
    x = torch.zeros(1)
    dist.recv(x, 0, tag=5)
    dist.send(x + 1, 0, tag=6)
    return x.item()


def never_ends():
    while True:
        pass


def stopped(seconds):
    """Rank 1 gets no processor time for a while, just when its message comes."""
    if dist.get_rank() == 1:
        pid = os.getpid()
        subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -STOP {pid}; sleep {seconds}; kill -CONT {pid}"])
        dist.recv(torch.zeros(3), 0)
    else:
        time.sleep(1.0)
        dist.send(torch.ones(3), 1)
    dist.barrier()
    return dist.get_rank()


def waits_in(call):
    """Rank 0 calls what nobody answers; rank 1 stays busy in a receive that nobody answers either."""
    x, rank = torch.zeros(4), dist.get_rank()
    if rank == 1:
        dist.recv(torch.zeros(1), 0, tag=99)
    elif call == "all_gather":
        dist.all_gather([torch.zeros(4), torch.zeros(4)], x)
    elif call == "reduce_scatter":
        dist.reduce_scatter(x, [torch.zeros(4), torch.zeros(4)])
    elif call == "isend":
        dist.isend(torch.zeros(1_000_000), 1).wait()
    elif call == "async all_reduce":
        dist.all_reduce(x, async_op=True).wait()
    elif call == "barrier":
        dist.barrier()
    elif call == "broadcast":
        dist.broadcast(x, 1)


def prints():
    print("to stdout from", dist.get_rank())
    print("to stderr", file=sys.stderr)
    print("no newline", end="")


def prints_a_lot():
    for _ in range(20_000):
        print("x" * 50)


def leaves_a_child():
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid


def leaves_a_child_and_fails(path, stuck):
    with open(path, "w") as file:
        file.write(str(leaves_a_child()))
    if stuck:
        never_ends()
    raise ValueError


def returns_a_generator():
    return (i for i in range(3))


def collectives():
    rank, x = dist.get_rank(), torch.ones(3)
    with record_traffic() as messages:
        dist.all_reduce(x)
        dist.broadcast(torch.ones(2, 2, dtype=torch.float64), 1)
        if rank == 0:
            dist.send(torch.ones(5), 1)
        else:
            dist.recv(torch.ones(5), 0)
        dist.all_gather([torch.zeros(3), torch.zeros(3)], x)
        dist.reduce_scatter(torch.zeros(3), [x, x])
        dist.reduce(x, 1)
        dist.gather(x, [torch.zeros(3), torch.zeros(3)] if rank == 0 else None, 0)
        dist.scatter(torch.zeros(3), [x, x] if rank == 0 else None, 0)
        dist.all_reduce(torch.ones(7), async_op=True).wait()
        dist.barrier()
    dist.all_reduce(x)
    return messages


def batched():
    other = 1 - dist.get_rank()
    a, b = torch.ones(4), torch.zeros(4)
    with record_traffic() as messages:
        for request in dist.batch_isend_irecv([dist.P2POp(dist.isend, a, other), dist.P2POp(dist.irecv, b, other)]):
            request.wait()
        with dist._coalescing_manager():
            dist.all_reduce(torch.ones(2))
            dist.all_reduce(torch.ones(3))
    return messages


def in_a_group():
    group = dist.new_group([1, 2])
    with record_traffic() as messages:
        if dist.get_rank() == 1:
            dist.send(torch.ones(1), 2, group=group)
        elif dist.get_rank() == 2:
            dist.recv(torch.ones(1), 1, group=group)
    return messages


def in_backward():
    p = torch.nn.Parameter(torch.ones(6))
    p.register_post_accumulate_grad_hook(lambda p: dist.all_reduce(p.grad) and None)
    with record_traffic() as hook:
        (p * 2).sum().backward()
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 2))
    with record_traffic() as ddp:
        model(torch.ones(1, 3)).sum().backward()
    return hook, ddp


def there_and_back():
    """Each rank shifts a block of rank + 1 numbers, and sends to + 1 rows to every rank."""
    from labkit.scaling import exchange, shift

    rank, world = dist.get_rank(), dist.get_world_size()
    block = (10.0 * rank + torch.arange(rank + 1.0)).reshape(1, -1, 1).requires_grad_()
    came = shift(block, (rank - 1) % world + 1)
    sent, received = [to + 1 for to in range(world)], [rank + 1] * world
    rows = torch.tensor([[100.0 * rank + to] for to in range(world) for _ in range(to + 1)], requires_grad=True)
    got = exchange(rows, sent, received)
    ((rank + 1) * (came.sum() + got.sum())).backward()
    return {
        "shifted": came[..., 0].tolist(),
        "exchanged": got[:, 0].tolist(),
        "gradient of the block": block.grad.flatten().tolist(),
        "gradient of the rows": rows.grad.flatten().tolist(),
    }
