"""A kernel forked from one that has imported everything is like a fresh one, and ends with whoever has started it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import warm_kernels
from jupyter_client.manager import start_new_kernel
from real_course import chapters

pytestmark = pytest.mark.slow
LIMIT = 60  # seconds until something has happened: against a hang


RUN_AND_WAIT = """
import os, sys, time, warm_kernels
from jupyter_client.manager import start_new_kernel
with warm_kernels.started(["ipykernel.kernelapp"]) as os.environ["JUPYTER_PATH"]:
    _, client = start_new_kernel(kernel_name="python3")
    told = "import os; print(os.getppid(), os.getpid())"
    client.execute_interactive(told, output_hook=lambda m: print(m["content"].get("text", ""), end="", flush=True))
    time.sleep(600)
"""


@pytest.fixture(scope="module", autouse=True)
def warm():
    """A server of this module's own: that of the session may have begun with a kernel of another environment."""
    with warm_kernels.started() as folder, pytest.MonkeyPatch.context() as patch:
        if folder is None:
            pytest.skip("no warm kernels on this system")
        patch.setenv("JUPYTER_PATH", folder, prepend=os.pathsep)
        yield


class Kernel:
    """A kernel, and the process that Jupyter takes for it."""

    def __init__(self, **options):
        self.manager, self.client = start_new_kernel(kernel_name="python3", **options)
        self.shown = self.manager.provisioner.process
        self.number = int(self.run("import os; print(os.getpid())"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def run(self, code: str) -> str:
        """What `code` prints, and the name and text of its error."""
        told = []

        def hook(message):
            content = message["content"]
            told.append(content.get("text", "") + content.get("ename", "") + content.get("evalue", ""))

        self.client.execute_interactive(code, output_hook=hook, timeout=LIMIT)
        return "".join(told).strip()


def ends(number: int) -> bool:
    """Whether a process does, soon. A zombie has, whether or not its parent has noticed."""
    late = time.monotonic() + LIMIT
    with contextlib.suppress(psutil.NoSuchProcess):
        while psutil.Process(number).status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > late:
                return False
            time.sleep(0.02)
    return True


def test_environment_folder_options_and_streams_arrive(tmp_path):
    with Kernel(cwd=str(tmp_path), env={**os.environ, "COLOR": "red"}) as kernel:
        assert kernel.number != kernel.shown.pid, "it is a fork"
        told = "import sys; print(os.environ['COLOR'], os.getcwd(), sys.argv[1], os.path.basename(sys.argv[0]))"
        assert kernel.run(told) == f"red {tmp_path} -f ipykernel_launcher.py"
        assert kernel.run("print('PYDEVD_DISABLE_FILE_VALIDATION' in os.environ, repr(os.read(0, 1)))") == "False b''"
        assert kernel.run("print(os.getpid() == os.getpgrp() == os.getsid(0))") == "True"


def test_the_libraries_are_there_and_nothing_of_the_course_is():
    with Kernel() as kernel:
        loaded = set(kernel.run("import sys; print(*sys.modules)").split())
    assert {"torch", "transformers", "matplotlib.pyplot"} <= loaded
    assert not any(name.partition(".")[0] in ("autograde", "labkit") for name in loaded)


def test_two_share_neither_state_nor_chance():
    draw = "import random, numpy, torch; print(random.random(), numpy.random.rand(), torch.rand(1).item())"
    with Kernel() as one, Kernel() as other:
        drawn = one.run(draw).split()
        assert len({*drawn, *other.run(draw).split()}) == 2 * len(drawn) == 6
        one.run("torch.mine = x = 1; os.environ['MINE'] = ''; os.chdir('/')")
        assert (
            other.run("print(hasattr(torch, 'mine'), 'MINE' in os.environ, os.getcwd() == '/')") == "False False False"
        )
        assert other.run("x").startswith("NameError")
    with Kernel() as later:
        assert later.run("import torch; print(hasattr(torch, 'mine'))") == "False"


def test_its_figures_go_into_the_notebook():
    with Kernel() as kernel:
        assert "inline" in kernel.run("import matplotlib.pyplot as plt; print(plt.get_backend())")


def test_its_exit_handlers_run_and_it_ends_well(tmp_path):
    with Kernel(cwd=str(tmp_path)) as kernel:
        kernel.run("import atexit, pathlib; atexit.register(pathlib.Path('ended').touch); print()")
        kernel.client.shutdown()
        assert kernel.shown.wait(LIMIT) == 0
    assert (tmp_path / "ended").exists()


@pytest.mark.parametrize(("way", "code"), [("os._exit(7)", 7), ("os.kill(os.getpid(), 9)", -9), ("os.abort()", -6)])
def test_its_exit_code_is_passed_on(way, code):
    with Kernel() as kernel:
        kernel.client.execute(way)
        assert kernel.shown.wait(LIMIT) == code


def test_an_interruption_reaches_it():
    with Kernel() as kernel:
        assert kernel.run(f"os.kill({kernel.shown.pid}, 2)\nwhile True: pass").startswith("KeyboardInterrupt")


def test_one_that_hears_nothing_ends_with_the_process_that_jupyter_kills():
    deaf = "import signal\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\nprint('deaf')"
    with Kernel() as kernel:
        child = int(kernel.run(f"{deaf}\nimport subprocess; print(subprocess.Popen(['sleep', '600']).pid)").split()[1])
        kernel.client.execute("while True: pass")
        kernel.shown.kill()
        assert ends(kernel.number) and ends(child)


@pytest.mark.parametrize("which", ["session", "server"])
def test_all_end_with_the_session_and_with_the_server(which):
    options = {"env": {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", RUN_AND_WAIT], **options) as session:
        server, kernel = map(int, session.stdout.readline().split())
        os.kill(session.pid if which == "session" else server, signal.SIGKILL)
        assert ends(kernel) and ends(server)
        session.kill()


@pytest.mark.parametrize("setting", [{warm_kernels.COLD: "1"}, {"PYTHONHASHSEED": "1"}])
def test_an_ordinary_one_on_request_and_where_imports_could_go_another_way(setting):
    with Kernel(env={**os.environ, **setting}) as kernel:
        assert kernel.number == kernel.shown.pid
        assert kernel.run("import sys; print('torch' in sys.modules)") == "False"


def test_no_chapter_leans_on_a_submodule_that_it_does_not_import():
    """It is there in a warm kernel. One source that does lean on such is found, so the others would be."""
    sources = {"leans": "import torch\nfrom torch import nn\ntorch.distributed.fsdp.FullyShardedDataParallel\nnn.no"}
    for chapter in chapters():
        sources[chapter.path] = "\n".join(cell.source for cell in chapter.cells if cell.kind != "markdown")
    command = [sys.executable, Path(warm_kernels.__file__).with_name("submodules.py")]
    done = subprocess.run(command, input=json.dumps(sources), capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found.keys() == sources.keys()
    assert {name: gone for name, gone in found.items() if gone} == {"leans": ["nn.no", "torch.distributed.fsdp"]}
