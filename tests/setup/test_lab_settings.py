"""What a learner's JupyterLab starts with: wrapped code, buttons, patience for Validate; no news, no teacher's tool."""

from __future__ import annotations

import hashlib
import json
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import nbgrader.server_extensions
import pytest
from traitlets.config import Config

from autograde import buttons
from autograde.classroom.course import make_course
from autograde.repository import ROOT

SETTINGS = ROOT / "jupyter"
EXTENSIONS = Path(sys.prefix, "share", "jupyter", "labextensions")


def read(name: str) -> dict:
    return json.loads((SETTINGS / "labconfig" / f"{name}.json").read_text(encoding="utf-8"))


def test_what_is_hidden_exists_and_validate_stays():
    hidden = read("page_config")["disabledExtensions"]
    for name in hidden:
        scripts = Path(EXTENSIONS, name.partition(":")[0], "static").glob("*.js")
        assert any(f'"{name}"' in script.read_text(encoding="utf-8") for script in scripts), name
    assert "@jupyter/nbgrader:validate-assignment" not in hidden


def configured(name: str) -> Config:
    config = Config()
    path = SETTINGS / name
    exec(path.read_text(encoding="utf-8"), {"get_config": lambda: config, "__file__": str(path)})
    return config


def test_the_course_s_own_extension_is_found_and_whole():
    """JupyterLab takes what `_build` names, and asks the container for the module that it names."""
    (folder,) = configured("jupyter_lab_config.py").LabApp.extra_labextensions_path
    (path,) = Path(folder).glob("*/package.json")
    package = json.loads(path.read_text(encoding="utf-8"))
    built = package["jupyterlab"]["_build"]
    script = (path.parent / built["load"].partition("?")[0]).read_text(encoding="utf-8")
    assert package["name"] == path.parent.name and f"'{package['name']}'" in script
    assert f"'{built['extension']}'" in script
    for label in ("Reset this exercise", "Hint", "Reveal the solution"):
        assert f"'{label}'" in script
    assert "autograde.buttons" in script and callable(buttons.press)


def test_a_changed_extension_gets_another_address():
    """JupyterLab lets browsers keep an extension's files for a year."""
    for path in SETTINGS.glob("labextensions/*/package.json"):
        file, _, version = json.loads(path.read_text())["jupyterlab"]["_build"]["load"].partition("?v=")
        wanted = hashlib.sha256((path.parent / file).read_bytes().replace(b"\r\n", b"\n")).hexdigest()[:8]
        assert version == wanted, f'write "load": "{file}?v={wanted}" in {path.name}'


def test_the_extension_is_javascript():
    node = shutil.which("node")
    if node is None:
        pytest.skip("node, which only looks through its syntax here, is not on this machine")
    for path in SETTINGS.glob("labextensions/*/static/*.js"):
        assert subprocess.run([node, "--check", path], capture_output=True, text=True).stderr == ""


def test_a_teacher_s_jupyterlab_has_none_of_it(tmp_path):
    make_course(tmp_path / "class", chapters=["02_applications/02_sampling"])
    text = (tmp_path / "class" / "nbgrader_config.py").read_text(encoding="utf-8")
    assert "labextensions" not in text and not (tmp_path / "class" / "jupyter").exists()


def test_settings_are_ones_that_jupyterlab_knows():
    for name, changed in read("default_setting_overrides").items():
        package, plugin = name.split(":")
        schema = Path(sys.prefix, "share", "jupyter", "lab", "schemas", package, f"{plugin}.json")
        known = json.loads(schema.read_text(encoding="utf-8"))["properties"]
        for key, value in changed.items():
            before = known[key]["default"]
            if isinstance(value, dict):
                assert value.keys() <= before.keys() and value.items() - before.items()
            else:
                assert value in [each["const"] for each in known[key].get("oneOf", [{"const": not before}])]


def test_validate_waits_for_a_slow_machine():
    config = configured("nbgrader_config.py")
    assert config.Execute.timeout >= 600


def test_the_server_loads_of_nbgrader_what_validate_needs_and_no_more():
    extensions = configured("jupyter_server_config.py").ServerApp.jpserver_extensions.get_value({})
    off = {name.rpartition(".")[2] for name, on in extensions.items() if not on}
    there = {module.name for module in pkgutil.iter_modules(nbgrader.server_extensions.__path__)}
    assert there - off == {"validate_assignment"} and off <= there


def test_the_launcher_points_jupyterlab_to_them(monkeypatch):
    import course

    started = {}
    monkeypatch.setattr(course, "launch", lambda command, cwd, **variables: started.update(variables))
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "/mine")
    course.lab(["--no-browser"])
    assert started["JUPYTER_CONFIG_PATH"].split(":") == [str(SETTINGS), "/mine"]
