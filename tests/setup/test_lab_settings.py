"""What a learner's JupyterLab starts with: no news, wrapped code, no teacher's tools, room for buttons."""

from __future__ import annotations

import json
import pkgutil
import sys
from pathlib import Path

import nbgrader.server_extensions
from traitlets.config import Config

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


def config(name: str) -> Config:
    made = Config()
    exec((SETTINGS / name).read_text(encoding="utf-8"), {"get_config": lambda: made})
    return made


def test_validate_waits_for_a_slow_machine():
    assert config("nbgrader_config.py").Execute.timeout >= 600


def test_the_server_loads_of_nbgrader_what_validate_needs_and_no_more():
    extensions = config("jupyter_server_config.py").ServerApp.jpserver_extensions.get_value({})
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
