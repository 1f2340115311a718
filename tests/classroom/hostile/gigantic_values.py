# does: replies with numbers, texts and containers that are too large or too deep
# says: too large
deep = []
for _ in range(10_000):
    deep = [deep]
calls = []


def softmax(x):
    calls.append(1)
    return [deep, 10**4000, "<script>" * 10**6, {1.5: {"a": float("nan")}, (1, 2): b"bytes"}, object()][len(calls) % 5]
