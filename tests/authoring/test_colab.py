"""Colab: a notebook's first cell installs what its chapter imports and Colab hasn't got."""

from __future__ import annotations

import importlib.metadata
import re
import sys

import pytest
from packaging.utils import canonicalize_name
from real_course import chapters

from autograde.authoring.colab import LACKS, lacking, modules
from autograde.repository import ROOT

# What Colab brings of what we import, by its own list of packages; triton and tensorrt stand behind a look for a GPU.
COLAB = {
    *("IPython", "PIL", "accelerate", "anyio", "cycler", "httpx", "huggingface_hub", "ipywidgets", "jinja2"),
    *("jsonschema", "matplotlib", "networkx", "numpy", "peft", "psutil", "pydantic", "regex", "safetensors", "scipy"),
    *("markdown_it", "rich", "sklearn"),
    *("tensorrt", "tokenizers", "torch", "transformers", "triton", "yaml"),
}
OURS = {"autograde", "labkit", "experiments"}
OPTIONAL = {"bitsandbytes", "deepspeed"}  # a chapter goes on without them


@pytest.mark.parametrize("chapter", chapters(), ids=lambda chapter: chapter.path)
def test_colab_has_or_gets_what_a_chapter_imports(chapter):
    needed = modules(chapter, ROOT) - set(sys.stdlib_module_names) - OURS - OPTIONAL
    assert needed <= COLAB | LACKS.keys(), "Say where these come from on Colab: LACKS in autograde/authoring/colab.py"


def test_what_is_installed_on_colab_is_pinned_here():
    pins = {canonicalize_name(name) for name in re.findall(r"^[\w.-]+", (ROOT / "requirements.txt").read_text(), re.M)}
    assert {canonicalize_name(package) for package in LACKS.values()} <= pins
    owners = importlib.metadata.packages_distributions()
    assert {module: canonicalize_name(owners[module][0]) for module in LACKS} == LACKS


def test_only_what_is_needed_is_installed():
    by_path = {chapter.path: lacking(chapter, ROOT) for chapter in chapters()}
    assert "onnxruntime" in by_path["02_applications/15_serving"]
    assert "gguf" in by_path["01_transformer/01_attention"]  # the model's file
    assert by_path["00_start_here"] == ["cloudpickle", "fsrs", "mdit-py-plugins", "platformdirs"]
