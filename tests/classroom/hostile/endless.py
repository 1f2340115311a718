# does: loops for ever
# says: did not return within


def softmax(x):
    while True:
        pass
