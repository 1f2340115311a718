"""What was measured on a GPU, if it ever was: `python course.py test gpu` writes it, and chapters print from it."""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

__all__ = ["GpuReport", "gpu_report"]

NONE = "There is no GPU report: `python course.py test gpu`, on a machine with an NVIDIA GPU, writes one."
NO_GPU = "No NVIDIA GPU that PyTorch can use is here, so the paths that need one were skipped."


class GpuReport:
    """Figures of one run on one card; empty where nobody has made one. `print` shows all of it."""

    def __init__(self, content: dict[str, Any] | None):
        self.content = content or {}

    def __bool__(self) -> bool:
        return bool(self.content)

    def __str__(self) -> str:
        return "\n".join([self.machine(), *(f"  {self.line(name)}" for name in self.content.get("checks", {}))])

    def machine(self) -> str:
        """On which card and with which versions the figures came out; or that there are none."""
        if not self:
            return NONE
        of = self.content
        count = f"{of['gpus']} x " if of["gpus"] > 1 else ""
        versions = f"driver {of['driver']}, CUDA {of['cuda']}, torch {of['torch']}"
        return f"Measured once, {of['made']}: {count}{of['card']} (compute capability {of['capability']}, {versions})."

    def line(self, name: str) -> str:
        """What came out for one path, such as "FP8 matmul", in one line."""
        if not self:
            return NONE
        if name not in self.content["checks"]:
            return f"{name}: not in the GPU report, which has {', '.join(self.content['checks'])}."
        found = self.content["checks"][name]
        if found["outcome"] != "passed":
            return f"{name}: {found['outcome']}, {found['told']}."
        return f"{name}: " + ", ".join(f"{what} {number:.3g}" for what, number in found["figures"].items()) + "."


def gpu_report() -> GpuReport:
    """The report that is kept with the course; an empty one, which says so when it is printed, where there is none."""
    path = report_file()
    if path is None or not path.is_file():
        return GpuReport(None)
    return GpuReport(json.loads(path.read_text(encoding="utf-8")))


def report_file() -> Path | None:
    """Where the report lies: beside the experiments' results. None where the course isn't installed from its folder."""
    spec = importlib.util.find_spec("experiments")
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) / "gpu_report.json" if places else None


def measure(checks: dict, device, told=print) -> dict[str, dict]:
    """Run every check, also after one that fails; what came out of each, as the report has it."""
    from labkit.gpu_checks import Skipped

    found = {}
    for name, check in checks.items():
        try:
            figures = {what: float(f"{number:.6g}") for what, number in check(device).items()}
            found[name] = {"outcome": "passed", "told": "", "figures": figures}
        except Skipped as why:
            found[name] = {"outcome": "skipped", "told": str(why), "figures": {}}
        except Exception as error:  # whatever a driver, a compiler or a kernel comes up with
            what = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            found[name] = {"outcome": "failed", "told": what, "figures": {}}
        told(GpuReport({"checks": found}).line(name))
    return found


def machine() -> dict[str, Any]:
    """The card and the versions."""
    import torch

    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(ask, capture_output=True, text=True, timeout=30).stdout.split("\n")[0].strip()
    except (OSError, subprocess.TimeoutExpired):
        driver = ""
    has = torch.cuda.is_available()
    return {
        "made": date.today().isoformat(),
        "card": torch.cuda.get_device_name() if has else "none",
        "capability": ".".join(map(str, torch.cuda.get_device_capability())) if has else "none",
        "gpus": torch.cuda.device_count(),
        "driver": driver or "unknown",
        "cuda": torch.version.cuda or "none",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run every path that a GPU opens, and write the report. 0: all passed or were skipped; 1: some failed."""
    parser = argparse.ArgumentParser(prog="course.py test gpu", description=main.__doc__)
    parser.add_argument("--dry", action="store_true", help="write no report")
    options = parser.parse_args(arguments)
    import torch

    if not torch.cuda.is_available():
        print(NO_GPU)
        return 0
    from labkit.gpu_checks import CHECKS

    content = machine()
    content["checks"] = measure(CHECKS, torch.device("cuda", 0), lambda line: print(line, flush=True))
    path = report_file()
    if path and not options.dry:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(f"Written to {path}. Commit it, and the chapters print from it.")
    return int(any(found["outcome"] == "failed" for found in content["checks"].values()))


if __name__ == "__main__":
    sys.exit(main())
