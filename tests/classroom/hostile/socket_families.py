# does: opens a socket of every family that there may be
# says: Exception
import socket

opened = []
for family in range(48):
    for make in (socket.socket, lambda family: socket.socketpair(family)[0]):
        try:
            make(family).close()
            opened.append(str(family))
        except (OSError, ValueError, TypeError):
            pass
raise Exception("families " + " ".join(sorted(set(opened), key=int)))


def softmax(x):
    return torch.zeros_like(x)
