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
    "shmget": lambda: libc.shmget(1234, 4096, 0o1666),
    "kill init": lambda: libc.kill(1, 9),
    "chroot": lambda: libc.chroot(b"/tmp"),
}
told += [f"{name} worked" for name, attempt in attempts.items() if attempt() >= 0]
raise Exception(" ".join(told))
