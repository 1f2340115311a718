"""`python course.py test gpu`: skipped with a sentence, each check's code as far as a CPU can run it, the report."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from labkit import gpu, gpu_checks, gpu_report

CPU = torch.device("cpu")
REPORT = {
    "made": "2026-01-02",
    "card": "Some Card",
    "capability": "9.0",
    "gpus": 2,
    "driver": "1.2",
    "cuda": "13.0",
    "torch": "2.13.0",
    "python": "3.11.1",
    "checks": {
        "FP8 matmul": {"outcome": "passed", "told": "", "figures": {"relative error": 0.03, "times as fast": 1.72}},
        "Triton kernel": {"outcome": "skipped", "told": "Triton isn't installed", "figures": {}},
        "memory": {"outcome": "failed", "told": "AssertionError: off", "figures": {}},
    },
}


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "report_file", lambda: tmp_path / "gpu_report.json")
    return tmp_path / "gpu_report.json"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, so nothing is skipped")
def test_without_a_gpu_it_says_one_sentence_and_is_content(kept):
    done = subprocess.run([sys.executable, "-m", "labkit.gpu"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, gpu.NO_GPU, "")
    assert not kept.exists()


def test_without_a_report_chapters_say_so(kept):
    report = gpu_report()
    assert not report
    assert str(report) == report.line("FP8 matmul") == report.machine() == gpu.NONE


def test_what_chapters_print_of_a_report(kept):
    kept.write_text(json.dumps(REPORT))
    report = gpu_report()
    assert report
    assert report.machine() == (
        "Measured once, 2026-01-02: 2 x Some Card (compute capability 9.0, driver 1.2, CUDA 13.0, torch 2.13.0)."
    )
    assert report.line("FP8 matmul") == "FP8 matmul: relative error 0.03, times as fast 1.72."
    assert report.line("Triton kernel") == "Triton kernel: skipped, Triton isn't installed."
    assert report.line("memory") == "memory: failed, AssertionError: off."
    assert report.line("other").startswith("other: not in the GPU report, which has FP8 matmul, ")
    assert str(report).count("\n") == 3


def test_a_report_that_is_kept_names_the_checks_that_there_are():
    report = gpu_report()
    assert set(report.content.get("checks", {})) <= set(gpu_checks.CHECKS)


def test_one_check_that_fails_does_not_keep_the_next_from_running():
    def broken(device):
        raise RuntimeError("no kernel image\nand much more")

    def too_old(device):
        raise gpu_checks.Skipped("it takes a newer card")

    told = []
    found = gpu.measure({"a": broken, "b": too_old, "c": lambda device: {"ratio": 1.2345600001}}, CPU, told.append)
    assert told == ["a: failed, RuntimeError: no kernel image.", "b: skipped, it takes a newer card.", "c: ratio 1.23."]
    assert found == {
        "a": {"outcome": "failed", "told": "RuntimeError: no kernel image", "figures": {}},
        "b": {"outcome": "skipped", "told": "it takes a newer card", "figures": {}},
        "c": {"outcome": "passed", "told": "", "figures": {"ratio": 1.23456}},
    }


@pytest.mark.parametrize("failing", [False, True])
def test_with_a_gpu_the_report_is_written_and_a_failure_told(kept, monkeypatch, capsys, failing):
    def check(device):
        assert not failing, "the product is off"
        return {"ratio": 2.0}

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "machine", lambda: {name: REPORT[name] for name in REPORT if name != "checks"})
    monkeypatch.setattr(gpu_checks, "CHECKS", {"one": check})
    assert gpu.main(["--dry"]) == int(failing) and not kept.exists()
    assert gpu.main([]) == int(failing)
    assert gpu_report().line("one") in capsys.readouterr().out
    assert gpu_report().content["checks"]["one"]["outcome"] == ("failed" if failing else "passed")


def test_the_machine_is_described_with_versions_and_without_a_name_of_its_own():
    assert set(gpu.machine()) == set(REPORT) - {"checks"}
    assert gpu.machine()["torch"] == torch.__version__


@pytest.mark.parametrize(
    ("check", "figures"),
    [
        (lambda: gpu_checks.bf16_matmul(CPU, size=64), {"relative error", "times as fast as float32"}),
        (lambda: gpu_checks.fp8(CPU, size=64), {"relative error", "times as fast as bfloat16"}),
        (lambda: gpu_checks.flash_attention(CPU, length=32), {"relative error", "times as fast as all scores"}),
        (lambda: gpu_checks.compiled(CPU, rows=4, backend="aot_eager"), {"relative error", "times as fast as eager"}),
        (lambda: gpu_checks.memory(CPU, layers=1), {"megabytes counted"}),
    ],
    ids=["bf16", "fp8", "flash", "compile", "memory"],
)
def test_what_a_cpu_can_do_too_is_right_there(check, figures):
    found = check()
    assert set(found) == figures
    assert found.get("relative error", 0.0) < 0.1


@pytest.mark.parametrize("check", [gpu_checks.triton_kernel, gpu_checks.pinned_copies])
def test_what_a_cpu_can_not_do_is_skipped_with_a_sentence(check):
    with pytest.raises(gpu_checks.Skipped):
        check(CPU)


def test_an_old_card_is_told_what_it_lacks(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(gpu_checks.Skipped, match="^FP8 takes compute capability 8.9, and this card has 7.5$"):
        gpu_checks.fp8(torch.device("cuda", 0))


def test_a_wrong_result_is_a_failure():
    with pytest.raises(AssertionError, match="the product is off by 20.00%, and 10.00% is allowed"):
        gpu_checks.close(0.2, 0.1, "the product")


def test_fp8_products_keep_the_size_of_their_inputs():
    g = torch.Generator().manual_seed(0)
    a, b = (1000 * torch.randn(32, 48, generator=g).bfloat16() for _ in range(2))
    assert gpu_checks.off(gpu_checks.fp8_matmul(a, b), a.float() @ b.float().t()) < 0.06
    assert not gpu_checks.fp8_matmul(torch.zeros_like(a), b).any()


@pytest.mark.slow
def test_a_training_program_is_held_against_one_process():
    assert gpu_checks.nccl(CPU, "train_fsdp", ranks=2)["nats from one process on a CPU"] < 1e-3
