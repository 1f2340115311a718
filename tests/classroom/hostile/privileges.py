# does: asks for root, mounts, namespaces, other processes' memory, shared memory that stays
# says: Exception
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
told = [f"uid {os.getuid() > 1000}"]
attempts = {
    "setuid": lambda: libc.setuid(0),
    "unshare": lambda: libc.unshare(0x10000000),
    "mount": lambda: libc.mount(b"none", b"/tmp", b"tmpfs", 0, None),
    "ptrace": lambda: libc.ptrace(16, os.getppid(), 0, 0),
    "a namespace by clone": lambda: libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0),
    "clone3": lambda: libc.syscall(435, 0, 0),
    "umount": lambda: libc.umount2(b"/proc", 2),
    "shmget": lambda: libc.shmget(1234, 4096, 0o1666),
    "chroot": lambda: libc.chroot(b"/tmp"),
}
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines() if ":" in line)
wanted = {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": 0, "CapAmb": 0, "NoNewPrivs": 1, "Seccomp": 2}
told += [f"{name} {status[name].strip()} worked" for name, value in wanted.items() if int(status[name], 16) != value]
told += [f"{name} worked" for name, attempt in attempts.items() if attempt() >= 0]
raise Exception(" ".join(told))
