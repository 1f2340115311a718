# does: takes all memory with many processes
# says: memory|ended|did not|BlockingIOError
import os
import time


def softmax(x):
    for _ in range(40):
        if os.fork() == 0:
            held = [bytearray(b"x") * 2**26 for _ in range(20)]
            time.sleep(60)
            os._exit(len(held) % 2)
    time.sleep(60)
