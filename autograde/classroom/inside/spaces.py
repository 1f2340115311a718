"""Namespaces, mounts and rights of their own for one student's processes. Runs inside the sandbox, before their code.

The sandbox has all of that already. This is the wall between two students who take turns in one: own processes, own
files, own message objects, and no right and no system call that leads out again. Linux's names: capabilities(7),
namespaces(7), mount(2), seccomp(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct

SCRATCH = ("/tmp", "/dev/shm")  # where learners' code may write
_NEWNS, _NEWIPC, _NEWUSER, _NEWPID = 0x00020000, 0x08000000, 0x10000000, 0x20000000
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _SLAVE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 19
_SET_SECCOMP, _SECCOMP_FILTER, _BOUNDING_DROP, _NO_NEW_PRIVS, _AMBIENT, _AMBIENT_CLEAR = 22, 2, 24, 38, 47, 4
_CAPABILITY_VERSION = 0x20080522
_libc = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None


def leave() -> None:
    """Make the next fork the first process of new namespaces. Raises OSError where the system forbids that.

    Who isn't root needs a user namespace for it, in which it stays who it is.
    """
    user, group = os.geteuid(), os.getegid()
    _called("unshare", _NEWPID | _NEWNS | _NEWIPC | (_NEWUSER if user else 0))
    if user:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)


def furnish(kept: list[str], size: int) -> None:
    """Mount an own /proc, and an empty /tmp and /dev/shm of `size` bytes each. Raises OSError.

    `kept` are folders below those that stay to be seen (Python itself may live there), read-only.
    """
    _mounted(None, "/", None, _REC | _SLAVE)
    _mounted("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    handles = {folder: os.open(folder, os.O_PATH | os.O_CLOEXEC) for folder in kept}
    for place in SCRATCH:
        _mounted("tmpfs", place, "tmpfs", _NOSUID | _NODEV, f"mode=1777,size={size}")
    for folder, handle in handles.items():
        before = os.umask(0o022)
        os.makedirs(folder)
        os.umask(before)
        _mounted(f"/proc/self/fd/{handle}", folder, None, _BIND | _REC)
        _mounted(None, folder, None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV)
        os.close(handle)
    os.chdir("/tmp")


def filter_calls(program: bytes) -> None:
    """Take on a system call filter, for this process and all that it starts. Raises OSError."""
    _called("prctl", _NO_NEW_PRIVS, 1, 0, 0, 0)
    if program:
        lines = ctypes.create_string_buffer(program, len(program))
        # struct sock_fprog: the number of 8-byte instructions, and where they are
        told = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(lines)))
        _called("prctl", _SET_SECCOMP, _SECCOMP_FILTER, told, 0, 0)


def lose_rights(user: int | None) -> None:
    """Become `user` (None: stay who we are), without any capability, also in programs started later. Raises OSError."""
    for number in range(64):
        with contextlib.suppress(OSError):  # no such capability, or no right to drop it
            _called("prctl", _BOUNDING_DROP, number, 0, 0, 0)
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    _called("prctl", _AMBIENT, _AMBIENT_CLEAR, 0, 0, 0)
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION, 0))
    _called("capset", header, ctypes.create_string_buffer(24))


def _mounted(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    texts = [text.encode() if text is not None else None for text in (source, target, kind)]
    _called("mount", *texts, ctypes.c_ulong(flags), data.encode() if data else None)


def _called(name: str, *args) -> None:
    if getattr(_libc, name)(*args) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
