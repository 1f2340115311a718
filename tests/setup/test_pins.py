"""One list of pins and one slug: the files around the course agree with each other."""

import importlib.metadata
import itertools
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from autograde import repository

REPO = Path(__file__).parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="signals and modes of POSIX")


def requirements(name):
    text = re.sub(r"\\\n *--hash=\S+", "", (REPO / name).read_text())
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def test_every_pin_is_exact_and_stands_once():
    pins = [pin for path in REPO.glob("requirements*.txt") for pin in requirements(path.name)]
    names = [canonicalize_name(pin.name) for pin in pins]
    assert len(names) == len(set(names))
    assert all(len(pin.specifier) == 1 and str(pin.specifier).startswith("==") and not pin.url for pin in pins)


SYSTEMS = [("linux", "Linux", "posix"), ("darwin", "Darwin", "posix"), ("win32", "Windows", "nt")]


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system[0])
def test_the_pins_are_closed_and_agree(system, python):
    """What any pinned package needs on this system is pinned too, to a version it accepts."""
    env = dict(zip(("sys_platform", "platform_system", "os_name"), system, strict=True))
    env |= {"python_version": python, "python_full_version": f"{python}.0", "platform_machine": "x86_64", "extra": ""}
    here = [pin for pin in requirements("requirements.txt") if not pin.marker or pin.marker.evaluate(env)]
    pins = {canonicalize_name(pin.name): pin for pin in here}
    for name, pin in pins.items():
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # another system's package
        for need in map(Requirement, needs):
            other = canonicalize_name(need.name)
            cuda = other.startswith(("nvidia-", "cuda-")) or other == "triton"
            if cuda or need.marker and not need.marker.evaluate(env):
                continue
            assert other in pins, f"{name} needs {need}"
            version = next(iter(pins[other].specifier)).version
            assert need.specifier.contains(version, prereleases=True), f"{pin} needs {need}, pinned is {version}"


def test_the_sandbox_is_held_to_the_hash_of_each_of_its_builds():
    (pin,) = requirements("requirements-sandbox.txt")
    machines = itertools.product(("linux", "darwin", "win32"), ("x86_64", "aarch64", "arm64", "AMD64"))
    builds = [m for m in machines if pin.marker.evaluate({"sys_platform": m[0], "platform_machine": m[1]})]
    hashes = re.findall(r" --hash=sha256:[0-9a-f]{64}\b", (REPO / "requirements-sandbox.txt").read_text())
    assert builds == [("linux", "x86_64"), ("linux", "aarch64")] and len(set(hashes)) == 2


def test_this_environment_is_the_pinned_one():
    for pin in requirements("requirements.txt"):
        if not pin.marker or pin.marker.evaluate():
            assert pin.specifier.contains(importlib.metadata.version(pin.name).split("+")[0]), pin


def test_the_ranges_of_the_project_hold_the_pins():
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    ranges = map(Requirement, itertools.chain(project["dependencies"], *project["optional-dependencies"].values()))
    pins = {canonicalize_name(p.name): next(iter(p.specifier)).version for p in requirements("requirements.txt")}
    for wide in ranges:
        assert not any(s.operator == "==" for s in wide.specifier)
        assert wide.specifier.contains(pins[canonicalize_name(wide.name)]), wide


def test_binder_and_conda_read_the_same_list():
    options = [line for line in (REPO / "binder/requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert options == ["--extra-index-url https://download.pytorch.org/whl/cpu", "-r ../requirements.txt"]
    conda = (REPO / "environment.yml").read_text()
    listed = re.findall(r"^ +- (.+)$", conda, re.MULTILINE)
    python = (REPO / "binder/runtime.txt").read_text().strip().replace("-", "=")
    assert listed == ["conda-forge", "nodefaults", python, "pip", "pip:", "-r requirements.txt"]
    assert "requirements-models.txt" in (REPO / "binder/postBuild").read_text()
    assert not list((REPO / "binder").glob("environment.y*ml"))  # it would beat requirements.txt


@posix
@pytest.mark.parametrize("name", ["binder/postBuild", "binder/start", ".ci/run"])
def test_scripts_are_executable_strict_and_well_formed(name):
    path = REPO / name
    assert os.access(path, os.X_OK) and "\nset -euo pipefail\n" in path.read_text()
    assert subprocess.run(["bash", "-n", str(path)]).returncode == 0
    if name == "binder/start":
        assert path.read_text().rstrip().endswith('exec "$@"')


def test_the_readmes_badges_come_from_the_slug():
    assert repository.badges() in (REPO / "README.md").read_text(), "run `autograde slug`"


@pytest.fixture
def published(tmp_path):
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(REPO / name, tmp_path)
    chapter = tmp_path / "notebooks/01_first/01_chapter.ipynb"
    chapter.parent.mkdir(parents=True)
    chapter.write_text("{}")
    return tmp_path


def test_one_call_moves_every_link(published):
    old = repository.slug(published)
    assert repository.set_slug("ada/the.course", published) == ["pyproject.toml", "README.md"]
    text = "".join((published / name).read_text() for name in ("pyproject.toml", "README.md"))
    assert old not in text and repository.slug(published) == "ada/the.course"
    assert repository.colab_url("notebooks/01_first/01_chapter.ipynb", published) in text
    assert repository.binder_url(root=published) in text
    assert repository.set_slug("ada/the.course", published) == []
    assert not list(published.glob("tmp*"))


WRONG = ["", "ada", "ada/", "/x", "ada/x/y", "-ada/x", "ada--b/x", "ada/x y", 'ada/x"', "ada/..", "ada/x.git"]


@pytest.mark.parametrize("wrong", [*WRONG, "https://github.com/ada/x", "a" * 40 + "/x"])
def test_what_is_no_slug_changes_nothing(published, wrong):
    before = (published / "pyproject.toml").read_bytes()
    with pytest.raises(ValueError, match="OWNER/NAME"):
        repository.set_slug(wrong, published)
    assert (published / "pyproject.toml").read_bytes() == before


def test_a_readme_without_markers_changes_nothing(published):
    before = (published / "pyproject.toml").read_bytes()
    (published / "README.md").write_text("nothing")
    with pytest.raises(ValueError, match="badges"):
        repository.set_slug("ada/x", published)
    assert (published / "pyproject.toml").read_bytes() == before


def test_the_readmes_sample_is_what_the_check_prints():
    from autograde.check import grade
    from autograde.exercises import find

    exercise = find("apply_rope")
    mistake = next(m for m in exercise.misconceptions if "RoFormer" in m.says)
    text = grade(exercise, mistake.implementation).text()
    assert f"```\n{text}\n```" in (REPO / "README.md").read_text(encoding="utf-8"), text
