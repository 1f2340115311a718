"""Where learners' code runs: bubblewrap, or podman or docker where that is missing, or nowhere.

The sandbox sees the system's libraries, Python, the installed packages, and those few files of this course that a
learner's code needs: neither exercises nor solutions, nor anybody's home. It has limits, no network, no environment.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from autograde.classroom import seccomp
from autograde.classroom.frames import BadFrame, Channel, Closed, Late

_PACKAGE = pathlib.Path(__file__).parents[1]
_LABKIT = _PACKAGE.with_name("labkit")
# What of `autograde` is inside, by its path there. No exercise, no grading, no misconception.
_INSIDE = {
    **{name: name for name in ("__init__.py", "unsolved.py", "exercise.py", "compare.py", "forbid.py", "limits.py")},
    **{name: name for name in ("ranks.py", "running.py")},
    **{f"classroom/{name}": f"classroom/{name}" for name in ("__init__.py", "frames.py", "worker.py")},
    "check.py": "classroom/inside_check.py",
}
_COURSE = "/course"
_START = "from autograde.classroom.worker import main; main()"
_FIRST_UID = 1_500_000_000  # far from anybody's; each sandbox has its own, since limits on processes count by user
INSTALL = "install bubblewrap (Debian, Ubuntu: `sudo apt install bubblewrap`; Fedora: `sudo dnf install bubblewrap`)"
_LOOK = 0.25  # seconds between two looks at the memory


class NoSandbox(ValueError):
    """Nothing on this machine can run a submission safely. The message says what to install or to change."""


class SandboxFailed(OSError):
    """The sandbox did not come up, or can't be used any more."""


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
    found, trouble = _probed()
    if found:
        return found
    raise NoSandbox(f"{trouble} Submissions are only run in a sandbox: {INSTALL}, or podman or docker.")


@functools.cache
def _probed() -> tuple[str, str]:
    trouble = "bubblewrap is not installed."
    if shutil.which("bwrap"):
        command = [*_isolation(), *_system_binds(), "--proc", "/proc", "--dev", "/dev", "true"]
        tried = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
        if tried.returncode == 0:
            return "bubblewrap", ""
        said = (tried.stderr.strip().splitlines() or ["it fails"])[-1]
        trouble = f"bubblewrap is installed and can't start ({said[:200]})."
        if pathlib.Path("/sys/kernel/security/apparmor").exists():
            trouble += (
                " On Ubuntu 24.04 AppArmor forbids it: an administrator can allow it with a profile for /usr/bin/bwrap "
                "or with `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`."
            )
    for name in ("podman", "docker"):
        if shutil.which(name):
            tried = subprocess.run([name, "info"], capture_output=True, stdin=subprocess.DEVNULL)
            if tried.returncode == 0:
                return name, ""
    return "", trouble


def _isolation() -> list[str]:
    spaces = ["--unshare-all"]
    if os.geteuid() == 0:  # root gives itself up inside; a user namespace would only hide that it is still root
        spaces = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    command = ["bwrap", *spaces, "--cap-drop", "ALL", "--die-with-parent", "--new-session"]
    if os.geteuid() == 0:
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
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


def _own_files() -> list[tuple[str, str]]:
    """(file or folder here, its place inside) of what the course lends to the sandbox."""
    files = [(str(_PACKAGE / source), f"{_COURSE}/autograde/{target}") for target, source in _INSIDE.items()]
    return [*files, (str(_LABKIT), f"{_COURSE}/labkit")]


def _masked() -> list[str]:
    """Installed copies of the course that a bound folder would show."""
    places = [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
    return [f"{p}/autograde" for p in places if os.path.isdir(f"{p}/autograde")]


def bubblewrap_command(limits: Limits, filter_fd: int | None = None) -> list[str]:
    """The command line that starts the worker in bubblewrap."""
    sized = ["--size", str(limits.disk * 2**20)] if _knows_size() else []
    command = _isolation() + _system_binds() + ["--proc", "/proc", "--dev", "/dev"]
    for folder in ("/dev/shm", "/tmp"):  # before the binds: Python itself may live below /tmp
        command += ["--perms", "1777", *sized, "--tmpfs", folder]
    binds = [(folder, folder) for folder in python_folders()] + _own_files()
    for folder in _parents(there for _, there in binds):
        command += ["--perms", "0755", "--dir", folder]
    for here, there in binds:
        command += ["--ro-bind", here, there]
    for folder in _masked():
        command += ["--tmpfs", folder]
    command += ["--remount-ro", "/", "--hostname", "sandbox", "--chdir", "/tmp"]
    if filter_fd is not None:
        command += ["--seccomp", str(filter_fd)]
    return [*command, "--", sys.executable, "-c", _START]


def _parents(places: Iterable[str]) -> list[str]:
    """The folders above some places, outermost first: bubblewrap itself would close some of them to the learner."""
    found = {str(parent) for place in places for parent in pathlib.Path(place).parents}
    return sorted(found - {"/", "/usr", "/tmp"})


@functools.cache
def _knows_size() -> bool:
    version = subprocess.run(["bwrap", "--version"], capture_output=True, text=True).stdout
    found = re.search(r"(\d+)\.(\d+)", version)
    return bool(found) and tuple(map(int, found.groups())) >= (0, 7)


def container_command(name: str, limits: Limits, uid: int) -> list[str]:
    """The command line that starts the worker in podman or docker, on the host's own libraries, read-only.

    The image only lends an empty root: AUTOGRADE_IMAGE, or debian:stable-slim.
    """
    command = [name, "run", "--rm", "--interactive", "--network", "none", "--read-only", "--cap-drop", "ALL"]
    command += ["--security-opt", "no-new-privileges", "--user", f"{uid}:{uid}", "--hostname", "sandbox"]
    command += ["--memory", f"{limits.memory}m", "--memory-swap", f"{limits.memory}m"]
    command += ["--pids-limit", str(limits.processes), "--workdir", "/tmp", "--shm-size", f"{limits.disk}m"]
    command += ["--tmpfs", f"/tmp:rw,mode=1777,size={limits.disk}m"]
    system = [f for f in ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives") if os.path.exists(f)]
    for folder in [*system, *python_folders()]:
        command += ["--volume", f"{folder}:{folder}:ro"]
    for folder in _masked():
        command += ["--tmpfs", folder]
    for here, there in _own_files():
        command += ["--volume", f"{here}:{there}:ro"]
    for key, value in environment(_COURSE).items():
        command += ["--env", f"{key}={value}"]
    return [*command, os.environ.get("AUTOGRADE_IMAGE", "debian:stable-slim"), sys.executable, "-c", _START]


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


class Sandbox:
    """One running sandbox and the connection to the worker in it."""

    def __init__(self, kind: str, imports: str = "", limits: Limits | None = None):
        """Start it and wait until it is ready; raises SandboxFailed where it does not come up."""
        self.kind, self.limits = kind, limits or Limits()
        self.peak, self.stopped_for = 0, ""
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        self._uid = _FIRST_UID + os.getpid() if kind == "bubblewrap" and root else None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the sandbox
        self._process = self._started()
        self.channel = Channel(self._process.stdout.fileno(), self._process.stdin.fileno(), strided_out=True)
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        settings = {
            "uid": self._uid,
            "alone": kind != "no sandbox",
            "limits": self.limits.resource_limits(self._uid is None),
            "imports": imports,
        }
        try:
            self.channel.send(settings, 60)
            self.channel.receive(180)
        except (Late, Closed, BadFrame) as error:
            told = self._last_words() or error
            self.close()
            raise SandboxFailed(f"the sandbox ({kind}) did not start: {told}") from None

    def _started(self) -> subprocess.Popen:
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._log, "bufsize": 0}
        if self.kind == "bubblewrap":
            program = seccomp.program()
            with tempfile.TemporaryFile() as file:
                file.write(program or b"")
                file.seek(0)
                number = file.fileno() if program else None
                command = bubblewrap_command(self.limits, number)
                passed = (number,) if program else ()
                return subprocess.Popen(command, env=environment(_COURSE), pass_fds=passed, cwd="/", **options)
        if self.kind == "no sandbox":
            surroundings = environment(str(_PACKAGE.parent))
            return subprocess.Popen(
                [sys.executable, "-c", _START], env=surroundings, start_new_session=True, cwd=tempfile.gettempdir(),
                **options,
            )  # fmt: skip
        uid = os.getuid() or 65534
        return subprocess.Popen(container_command(self.kind, self.limits, uid), **options)

    def _watch(self) -> None:
        """End the sandbox when all its processes together hold more memory than they may."""
        import psutil

        while not self._over.wait(_LOOK):
            try:
                below = psutil.Process(self._process.pid).children(recursive=True)
            except psutil.Error:
                continue
            # Pages that forks share count for each of them here, so that the costly exact answer is rarely needed.
            if sum(map(_anonymous, below)) > self.limits.memory * 2**20:
                used = sum(map(_share, below))
                self.peak = max(self.peak, used)
                if used > self.limits.memory * 2**20:
                    self.stopped_for = f"used more than {self.limits.memory:,} MB of memory"
                    self._kill()
                    return

    def measure(self) -> int:
        """Bytes that all processes in the sandbox hold now, shared pages counted once."""
        import psutil

        with contextlib.suppress(psutil.Error):
            self.peak = max(self.peak, sum(map(_share, psutil.Process(self._process.pid).children(recursive=True))))
        return self.peak

    def _kill(self) -> None:
        """Bubblewrap's process namespace dies with it; without one, the whole process group goes."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self.kind == "no sandbox":
                os.killpg(self._process.pid, 9)
            self._process.kill()

    def close(self) -> None:
        """End everything in it."""
        self._over.set()
        self._kill()
        self._process.wait()
        self._log.close()
        for end in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                end.close()
        if self._watcher.is_alive() and self._watcher is not threading.current_thread():
            self._watcher.join()

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read(20_000).decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else ""


def _anonymous(process) -> int:
    try:
        with open(f"/proc/{process.pid}/statm", encoding="ascii") as file:
            _, resident, shared = map(int, file.read().split()[:3])
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def _share(process) -> int:
    try:
        with open(f"/proc/{process.pid}/smaps_rollup", encoding="ascii") as file:
            return sum(1024 * int(line.split()[1]) for line in file if line.startswith("Pss:"))
    except OSError:
        return 0

