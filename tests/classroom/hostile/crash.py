# does: reads from address 0
# says: SIGSEGV
import ctypes


def softmax(x):
    ctypes.string_at(0)
