# does: calls out: loopback, the network, names, abstract sockets
# says: Exception
import socket

told = []
for address in [("127.0.0.1", int("@PORT@")), ("1.1.1.1", 53)]:
    try:
        socket.create_connection(address, timeout=2).send(b"hello")
        told.append(f"reached {address}")
    except OSError as error:
        told.append(type(error).__name__)
try:
    told.append(str(socket.gethostbyname("example.org")))
except OSError as error:
    told.append(type(error).__name__)
raise Exception(" ".join(told))
