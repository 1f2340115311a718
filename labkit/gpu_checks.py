"""Each path that a GPU opens, run once and held against the plain one: what `python course.py test gpu` runs.

A check takes the device and gives figures by name, numbers of one run on one card. It raises Skipped with a sentence
where the card or the installation can't do it, and AssertionError where the result is wrong. What exists on a CPU as
well runs there too, which is how the tests run it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from labkit.cluster import BF16

FP8 = (8, 9)  # compute capability from which on a card has FP8 tensor cores: Ada, Hopper, Blackwell
Figures = dict[str, float]


class Skipped(Exception):
    """This card, or this installation, can't do it. The message says what it would take."""


def needs(device: torch.device, capability: tuple[int, int], what: str) -> None:
    """Skip where the card is older than that."""
    if device.type == "cuda" and (has := torch.cuda.get_device_capability(device)) < capability:
        least, this = (".".join(map(str, version)) for version in (capability, has))
        raise Skipped(f"{what} takes compute capability {least}, and this card has {this}")


def seconds(work: Callable, device: torch.device, times: int = 20) -> float:
    """Seconds that one call takes on the device, warmed up, as the mean of several."""
    work()
    if device.type != "cuda":
        begin = time.perf_counter()
        for _ in range(times):
            work()
        return (time.perf_counter() - begin) / times
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin.record()
    for _ in range(times):
        work()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1000 / times


def off(found: torch.Tensor, right: torch.Tensor) -> float:
    """Relative error: the length of the difference against the length of the right one."""
    return float((found.float() - right.float()).norm() / right.float().norm())


def close(error: float, most: float, what: str) -> float:
    """The error, if it is small enough."""
    assert error <= most, f"{what} is off by {error:.2%}, and {most:.2%} is allowed"
    return error


def matrices(size: int, device: torch.device, dtype: torch.dtype) -> list[torch.Tensor]:
    g = torch.Generator(device).manual_seed(0)
    return [torch.randn(size, size, device=device, generator=g).to(dtype) for _ in range(2)]


def bf16_matmul(device: torch.device, size: int = 8192) -> Figures:
    """A product in bfloat16 against float32."""
    needs(device, BF16, "bfloat16")
    a, b = matrices(size, device, torch.float32)
    small = a.bfloat16(), b.bfloat16()
    error = close(off(small[0] @ small[1], a @ b), 0.02, "the product in bfloat16")
    times = seconds(lambda: a @ b, device), seconds(lambda: small[0] @ small[1], device)
    return {"relative error": error, "times as fast as float32": times[0] / times[1]}


def fp8_matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a [m, k] @ b.T for b [n, k] in FP8 on tensor cores, bf16 out. m, k and n are multiples of 16.

    Both matrices get one scale each, so that the largest number becomes 448, the largest of E4M3.
    """
    scales = [x.abs().max().float().clamp(min=1e-12) / 448 for x in (a, b)]
    small = [(x / scale).to(torch.float8_e4m3fn) for x, scale in zip((a, b), scales, strict=True)]
    return torch._scaled_mm(small[0], small[1].t(), scale_a=scales[0], scale_b=scales[1], out_dtype=torch.bfloat16)


def fp8(device: torch.device, size: int = 8192) -> Figures:
    """A product in FP8, the scaling included, against bfloat16."""
    needs(device, FP8, "FP8")
    a, b = matrices(size, device, torch.bfloat16)
    error = close(off(fp8_matmul(a, b), a @ b.t()), 0.1, "the product in FP8")
    times = seconds(lambda: a @ b.t(), device), seconds(lambda: fp8_matmul(a, b), device)
    return {"relative error": error, "times as fast as bfloat16": times[0] / times[1]}


def flash_attention(device: torch.device, length: int = 4096) -> Figures:
    """The flash kernel against attention that writes all scores down, causal, 8 heads of 64."""
    needs(device, BF16, "flash attention")
    g = torch.Generator(device).manual_seed(0)
    q, k, v = (torch.randn(1, 8, length, 64, device=device, generator=g).bfloat16() for _ in range(3))

    def attend(way):
        with sdpa_kernel(way):
            return scaled_dot_product_attention(q, k, v, is_causal=True)

    ways = SDPBackend.MATH, SDPBackend.FLASH_ATTENTION
    error = close(off(attend(ways[1]), attend(ways[0])), 0.02, "flash attention")
    times = [seconds(lambda way=way: attend(way), device) for way in ways]
    figures = {"relative error": error, "times as fast as all scores": times[0] / times[1]}
    if device.type == "cuda":
        most = [peak(lambda way=way: attend(way), device) for way in ways]
        figures["memory, of that of all scores"] = most[1] / most[0]
    return figures


def peak(work: Callable, device: torch.device) -> int:
    """Bytes that the allocator held at most while it ran, beside what was there before."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def compiled(device: torch.device, rows: int = 4096, backend: str = "inductor") -> Figures:
    """torch.compile of a norm and a gated unit, against the same operators one by one."""
    torch.manual_seed(0)
    norm, lift, gate = nn.RMSNorm(1024), nn.Linear(1024, 1024), nn.Linear(1024, 1024)
    block = nn.ModuleList([norm, lift, gate]).to(device)
    x = torch.randn(rows, 1024, device=device)

    def run(x):
        y = block[0](x)
        return x + block[1](y) * nn.functional.silu(block[2](y))

    fast = torch.compile(run, backend=backend)
    with torch.no_grad():
        error = close(off(fast(x), run(x)), 1e-3, "what torch.compile made")
        times = [seconds(lambda way=way: way(x), device) for way in (run, fast)]
    return {"relative error": error, "times as fast as eager": times[0] / times[1]}


def triton_kernel(device: torch.device, size: int = 2**24) -> Figures:
    """A kernel of our own in Triton, x * sigmoid(x) * y in one pass over memory, against torch's three."""
    if device.type != "cuda":
        raise Skipped("a Triton kernel takes a GPU")
    try:
        from labkit.gpu_kernel import gated
    except ImportError:
        raise Skipped("Triton isn't installed; it comes with PyTorch's CUDA builds for Linux") from None

    def plain(x, y):
        return x * torch.sigmoid(x) * y

    x, y = (torch.randn(size + 1, device=device) for _ in range(2))  # one more than fills the last block
    error = close(off(gated(x, y), plain(x, y)), 1e-5, "the kernel")
    times = [seconds(lambda way=way: way(x, y), device) for way in (plain, gated)]
    return {"relative error": error, "times as fast as torch's operators": times[0] / times[1]}


def pinned_copies(device: torch.device, size: int = 2**26) -> Figures:
    """Copies to the GPU from pinned memory against pageable memory, and whether they run beside a computation."""
    if device.type != "cuda":
        raise Skipped("pinned memory takes a GPU")
    pageable = torch.ones(size)
    pinned = pageable.pin_memory()
    assert torch.equal(pinned.to(device, non_blocking=True).cpu(), pageable), "the copy differs"
    plain = seconds(lambda: pageable.to(device), device)
    quick = seconds(lambda: pinned.to(device, non_blocking=True), device)
    a, side = torch.randn(4096, 4096, device=device), torch.cuda.Stream(device)

    def compute():
        return a @ a

    def both():
        with torch.cuda.stream(side):
            pinned.to(device, non_blocking=True)
        compute()
        torch.cuda.current_stream(device).wait_stream(side)

    alone, together = seconds(compute, device), seconds(both, device)
    return {
        "times as fast as from pageable memory": plain / quick,
        "of copy and product one after the other": together / (quick + alone),
    }


def memory(device: torch.device, layers: int = 4) -> Figures:
    """What torch.cuda says that a training step takes, against labkit's own count of the tensors made in it."""
    from labkit.memory import record_memory
    from labkit.training import CharGPT, loss_of

    torch.manual_seed(0)
    model = CharGPT(vocab=64, context=128, width=256, layers=layers).to(device)
    ids = torch.randint(64, (16, 128), device=device)

    def step():
        model.zero_grad(set_to_none=True)
        loss_of(model(ids), ids).backward()

    step()  # workspaces of the libraries are taken once, and stay
    model.zero_grad(set_to_none=True)
    with record_memory() as counted:
        step()
    figures = {"megabytes counted": counted.peak / 1e6}
    if device.type == "cuda":
        model.zero_grad(set_to_none=True)
        figures["allocator's, of those counted"] = close(peak(step, device) / counted.peak, 3.0, "the allocator's peak")
    return figures


def nccl(device: torch.device, program: str = "train_ddp", ranks: int | None = None) -> Figures:
    """A training program under torchrun on all GPUs, over NCCL, against one process on a CPU: the same first losses."""
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.type == "cuda" and not torch.distributed.is_nccl_available():
        raise Skipped("this build of PyTorch has no NCCL")
    ranks = ranks or gpus
    where = [] if gpus else ["--cpu"]
    rows = 16 * ranks
    found = losses(program, ranks, ["--batch-size", "16", "--fp32", *where])
    alone = losses("train_ddp", 1, ["--batch-size", str(rows), "--cpu"])
    assert found.keys() == alone.keys(), f"{program} told of the steps {list(found)}"
    apart = max(abs(found[step] - alone[step]) for step in found)
    assert apart < 0.02, f"the losses of {program} are {apart:.3f} nats off"
    return {"ranks": ranks, "nats from one process on a CPU": apart}


def losses(program: str, ranks: int, options: list[str]) -> dict[int, float]:
    """Ten steps of a program under torchrun: {step: loss}."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [*start, "-m", f"labkit.{program}", "--layers", "4", "--steps", "10", "--every", "2", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{program} failed: {done.stderr.strip()[-500:]}"
    return {int(step): float(loss) for step, loss in re.findall(r"step +(\d+) +loss ([\d.]+)", done.stdout)}


CHECKS: dict[str, Callable[..., Figures]] = {
    "bf16 matmul": bf16_matmul,
    "FP8 matmul": fp8,
    "flash SDPA": flash_attention,
    "torch.compile": compiled,
    "Triton kernel": triton_kernel,
    "pinned copies": pinned_copies,
    "memory": memory,
    "NCCL DDP": nccl,
    "NCCL FSDP2": lambda device: nccl(device, "train_fsdp"),
}
