# does: prints a gigabyte, every way there is
# says: gives the right result|did not
import os
import sys

for _ in range(200):
    print("x" * 2**20)
    os.write(1, b"x" * 2**20)
    os.write(2, b"x" * 2**20)
    sys.__stdout__.write("x" * 2**20)


def softmax(x):
    for _ in range(100):
        print("y" * 2**20)
        os.write(1, b"x" * 2**20)
    return torch.zeros_like(x)
