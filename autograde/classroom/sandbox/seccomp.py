"""A seccomp filter for the sandbox: system calls that no exercise needs and that outlive or reach past a process.

System V and POSIX message objects would survive the clearing away between two notebooks; ptrace, keyrings, BPF,
io_uring, userfaultfd and new namespaces are the usual ways into a kernel; files in memory that belong to no file
system have no size limit. Each fails with EPERM; clone3, whose flags a filter can't read, with ENOSYS, after which the
C library takes clone. Sockets are of few families (ranks talk over loopback), any other fails with EAFNOSUPPORT.
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
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "finit_module": (313, 273),
}
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_CLONE, _CLONE3 = (56, 220), 435
_NEW_NAMESPACE = 0x7E020000  # clone's CLONE_NEW… flags
_SOCKET, _SOCKETPAIR = (41, 198), (53, 199)
_FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}
_NETLINK, _ROUTE = 16, 0  # by which ranks ask for the network's interfaces, and nothing else of that family
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _EPERM, _ENOSYS, _EAFNOSUPPORT = 0x7FFF0000, 0x00050001, 0x00050026, 0x00050061
_X32 = 0x40000000  # the same calls under other numbers
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _THIRD_ARGUMENT = 0, 4, 16, 32  # where they are in struct seccomp_data


def program() -> bytes | None:
    """The filter as Linux reads it, or None on a processor whose numbers are not known here."""
    if platform.machine() not in _ARCHITECTURES:
        return None
    column, architecture = _ARCHITECTURES[platform.machine()]
    numbers = sorted(row[column] for row in _REFUSED.values())
    return _assembled(
        [
            (_LOAD, "", "", _ARCHITECTURE),
            (_JUMP_EQUAL, "", "refuse", architecture),  # another architecture's numbers
            (_LOAD, "", "", _NUMBER),
            (_JUMP_AT_LEAST, "refuse", "", _X32),
            *((_JUMP_EQUAL, "refuse", "", number) for number in numbers),
            (_JUMP_EQUAL, "absent", "", _CLONE3),
            (_JUMP_EQUAL, "socket", "", _SOCKET[column]),
            (_JUMP_EQUAL, "socket", "", _SOCKETPAIR[column]),
            (_JUMP_EQUAL, "", "allow", _CLONE[column]),
            (_LOAD, "", "", _FIRST_ARGUMENT),  # the flags
            (_JUMP_ANY_BIT, "refuse", "allow", _NEW_NAMESPACE),
            "socket",
            (_LOAD, "", "", _FIRST_ARGUMENT),  # the family
            *((_JUMP_EQUAL, "allow", "", family) for family in _FAMILIES.values()),
            (_JUMP_EQUAL, "", "no family", _NETLINK),
            (_LOAD, "", "", _THIRD_ARGUMENT),  # its protocol
            (_JUMP_EQUAL, "allow", "", _ROUTE),
            "no family",
            (_RETURN, "", "", _EAFNOSUPPORT),
            "allow",
            (_RETURN, "", "", _ALLOW),
            "refuse",
            (_RETURN, "", "", _EPERM),
            "absent",
            (_RETURN, "", "", _ENOSYS),
        ]
    )


def _assembled(lines: list) -> bytes:
    """(operation, where to go on if it is so, and if not, number): no place is the next line. A text is a place."""
    places: dict[str, int] = {}
    for line in lines:
        if isinstance(line, str):
            places[line] = sum(not isinstance(before, str) for before in lines[: lines.index(line)])
    orders = [line for line in lines if not isinstance(line, str)]

    def way(place: str, here: int) -> int:
        return places[place] - here - 1 if place else 0

    return b"".join(struct.pack("=HBBI", op, way(yes, i), way(no, i), k) for i, (op, yes, no, k) in enumerate(orders))
