"""labkit.record_memory: the most bytes at once, counted once, and given back."""

from __future__ import annotations

import gc
import platform
import sys
import weakref

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from labkit import give_back, record_memory

KB = torch.zeros(256)  # 1,024 bytes


def test_what_is_held_at_once_counts():
    with record_memory() as memory:
        held = [KB + i for i in range(3)]
    assert memory.peak == 3 * 1024 == sum(t.nbytes for t in held)


def test_what_is_given_back_counts_no_longer():
    with record_memory() as memory:
        for i in range(10):
            made = KB + i
            del made
    assert memory.peak == 1024


def test_a_view_costs_nothing():
    with record_memory() as memory:
        made = KB + 1
        views = [made.view(16, 16), made[:5], made.view(16, 16).T]
        del made
        more = KB + 2
    assert memory.peak == 2 * 1024
    assert len(views) and more is not None


def test_a_view_keeps_its_base_alive():
    with record_memory() as memory:
        first = (KB + 1)[:2]
        second = (KB + 1)[:2]
    assert memory.peak == 2 * 1024
    assert len(first) == len(second)


def test_tensors_from_outside_are_free():
    with record_memory() as memory:
        KB.view(16, 16)[3:5].mT.add_(0)
    assert memory.peak == 0


def test_softmax_attention_holds_the_scores():
    q = torch.zeros(64, 8)
    with record_memory() as memory:
        (q @ q.mT).softmax(-1) @ q
    assert memory.peak >= 2 * 64 * 64 * 4


def test_what_nobody_holds_is_let_go_of():
    class Ring:
        pass

    gc.disable()
    try:
        ring = Ring()
        ring.self, gone = ring, weakref.ref(ring)
        del ring
        assert gone() is not None
        give_back()
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only this C library can be asked to return memory")
def test_the_room_of_small_pieces_goes_back_to_the_system():
    held = [torch.ones(16_000) for _ in range(1_000)]  # 64 MB in pieces that the library keeps
    held = held[::2]
    before = psutil.Process().memory_info().rss
    give_back()
    assert before - psutil.Process().memory_info().rss > 16e6
    assert len(held) == 500


@pytest.fixture
def resting(tmp_path):
    """A model whose weights, 32 MB, lie in a file, as those of `smollm()` do."""
    save_file({"weight": torch.arange(8_000_000, dtype=torch.float32).view(2_000, 4_000)}, tmp_path / "weights")
    model = torch.nn.Linear(4_000, 2_000, bias=False)
    model.weight = torch.nn.Parameter(load_file(tmp_path / "weights")["weight"])
    assert model.weight.sum() > 0  # read once, so that it is in memory
    return model


def test_a_resting_model_s_weights_are_what_they_were(resting):
    with torch.no_grad():
        resting.weight[7] = 1.0  # a change that stands in no file
    before = resting.weight.detach().clone()
    give_back(resting)
    assert torch.equal(resting.weight, before)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is asked")
def test_a_resting_model_gives_its_room_back(resting):
    before = psutil.Process().memory_info().rss
    give_back(resting)
    assert before - psutil.Process().memory_info().rss > 24e6
