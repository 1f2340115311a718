"""A seccomp filter for the sandbox: system calls that no exercise needs and that outlive or reach past a process.

System V and POSIX message objects would survive the clearing away between two notebooks; ptrace, keyrings, BPF,
io_uring, userfaultfd and new namespaces are the usual ways into a kernel. Each fails with EPERM; clone3, whose flags
a filter can't read, with ENOSYS, after which the C library takes clone.
"""

from __future__ import annotations

import platform
import struct

# name: (x86_64, aarch64)
_REFUSED = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "pidfd_getfd": (438, 438),
    "open_by_handle_at": (304, 265),
    "pivot_root": (155, 41),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "finit_module": (313, 273),
}
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_CLONE, _CLONE3 = (56, 220), 435
_NEW_NAMESPACE = 0x7E020000  # clone's CLONE_NEW… flags
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _EPERM, _ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
_X32 = 0x40000000  # the same calls under other numbers


def program() -> bytes | None:
    """The filter as Linux reads it, or None on a processor whose numbers are not known here."""
    if platform.machine() not in _ARCHITECTURES:
        return None
    column, architecture = _ARCHITECTURES[platform.machine()]
    numbers = sorted(row[column] for row in _REFUSED.values())
    count = len(numbers)
    lines = [
        (_LOAD, 0, 0, 4),
        (_JUMP_EQUAL, 0, count + 7, architecture),  # another architecture's numbers: refused
        (_LOAD, 0, 0, 0),
        (_JUMP_AT_LEAST, count + 5, 0, _X32),
        *((_JUMP_EQUAL, count + 4 - i, 0, number) for i, number in enumerate(numbers)),
        (_JUMP_EQUAL, 5, 0, _CLONE3),
        (_JUMP_EQUAL, 0, 2, _CLONE[column]),
        (_LOAD, 0, 0, 16),  # its first argument, the flags
        (_JUMP_ANY_BIT, 1, 0, _NEW_NAMESPACE),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _EPERM),
        (_RETURN, 0, 0, _ENOSYS),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
