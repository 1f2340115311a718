# does: leaves processes behind that have left its group
# says: gives the right result
import os
import time


def leave():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True:
                open("/tmp/still-here", "a").write("x")
                time.sleep(0.05)
        os._exit(0)


leave()


def softmax(x):
    leave()
    return torch.zeros_like(x)
