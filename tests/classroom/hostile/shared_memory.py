# does: asks for memory that no process owns: shared pages, and files in memory that are in no folder
# says: memory|ended
import mmap
import os
import time

told = []
try:
    os.close(os.memfd_create("mine"))
    told.append("a file in memory")
except OSError as error:
    told.append(type(error).__name__)
shared = mmap.mmap(-1, 1_700 * 2**20)
for page in range(0, len(shared), 4096):
    shared[page] = 1
time.sleep(20)  # it keeps them: who watches looks now and then
raise Exception(" ".join(told))


def softmax(x):
    return torch.zeros_like(x)
