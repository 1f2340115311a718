"""Colab: a notebook's first cell installs what its chapter imports and Colab hasn't got."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from real_course import chapters

from autograde.authoring.colab import LACKS, lacking, modules
from autograde.repository import ROOT

# What Colab brings of what we import, by its own list of packages; triton and tensorrt stand behind a look for a GPU.
COLAB = {
    *("IPython", "PIL", "accelerate", "anyio", "cycler", "httpx", "huggingface_hub", "ipywidgets", "jinja2"),
    *("jsonschema", "matplotlib", "networkx", "numpy", "peft", "psutil", "pydantic", "regex", "safetensors", "scipy"),
    *("markdown_it", "rich", "sklearn"),
    *("tensorrt", "tokenizers", "torch", "triton", "yaml"),
}
OURS = {"autograde", "labkit", "experiments"}
OPTIONAL = {"bitsandbytes", "deepspeed"}  # a chapter goes on without them


@pytest.mark.parametrize("chapter", chapters(), ids=lambda chapter: chapter.path)
def test_colab_has_or_gets_what_a_chapter_imports(chapter):
    needed = modules(chapter, ROOT) - set(sys.stdlib_module_names) - OURS - OPTIONAL
    assert needed <= COLAB | LACKS.keys(), "Say where these come from on Colab: LACKS in autograde/authoring/colab.py"


def test_what_is_installed_on_colab_is_pinned_here():
    found = re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "requirements.txt").read_text(), re.M)
    pins = {canonicalize_name(name): version for name, version in found}
    wanted = {module: Requirement(line) for module, line in LACKS.items()}
    assert all(each.specifier.contains(pins[each.name]) for each in wanted.values())
    owners = importlib.metadata.packages_distributions()
    assert {module: canonicalize_name(owners[module][0]) for module in LACKS} == {m: r.name for m, r in wanted.items()}


def test_what_colab_has_is_new_enough_or_is_installed():
    """Against the newest list of Colab's packages that is known."""
    has = dict(line.split("==") for line in (ROOT / "tests/colab.txt").read_text().split() if "==" in line)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ranges = {canonicalize_name(wide.name): wide for wide in map(Requirement, project["dependencies"])}
    brought = {Requirement(line).name: line for line in LACKS.values()}
    for name, version in has.items():
        if name in ranges and not ranges[name].specifier.contains(version):
            assert brought.get(name) == str(ranges[name]), f"{name} {version} is too old: LACKS should bring it"


def test_only_what_is_needed_is_installed():
    by_path = {chapter.path: lacking(chapter, ROOT) for chapter in chapters()}
    assert "onnxruntime" in by_path["02_applications/15_serving"]
    assert "gguf" in by_path["01_transformer/01_attention"]  # the model's file
    assert by_path["00_start_here"] == ["cloudpickle", "fsrs", "mdit-py-plugins", "platformdirs"]
