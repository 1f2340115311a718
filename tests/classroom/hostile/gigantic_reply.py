# does: replies with more numbers than fit, and with strides that pretend to
# says: far more than the task needs|too large


def softmax(x):
    if x.dim() > 1:
        return torch.zeros(1).expand(2**40)
    return torch.zeros(30_000_000)
