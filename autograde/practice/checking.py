"""Has the file of a coding task checked, in a process that can neither hang nor break this one."""

from __future__ import annotations

import html
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["check_file", "nothing"]

PATIENCE = 150.0  # seconds for a check with all its imports: one on ranks may take 60


def nothing(name: str, why: str) -> dict[str, Any]:
    """The result where there was nothing to check, with the reason in a sentence."""
    text = f"{name}: no points. {why}"
    return {
        "earned": 0.0,
        "points": 1.0,
        "status": "no points",
        "told": why,
        "text": text,
        "html": f"<p>{html.escape(text)}</p>",
    }


def check_file(path: Path, name: str, patience: float = PATIENCE) -> dict[str, Any]:
    """What a chapter's check says of `name` in a file: earned, points, status, text, html, told."""
    if not path.is_file():
        return nothing(name, f"The file {path} is not there.")
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        command = [sys.executable, "-m", "autograde.practice.judge", str(path), name, str(result)]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        try:
            ended = subprocess.run(command, timeout=patience, text=True, errors="replace", **quiet)
        except subprocess.TimeoutExpired:
            return nothing(name, f"The check did not end within {patience:.0f} seconds: does the file itself run long?")
        try:
            return json.loads(result.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            last = (ended.stderr.strip().splitlines() or ["it ended without a word"])[-1]
            return nothing(name, f"The check broke off: {last}")
