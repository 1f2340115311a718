# does: gives a number with five thousand digits, and lists that hold themselves
# says: can't be handed over|raised

def softmax(x):
    if x.dim() > 1:
        return 10**5000
    around = []
    around.append(around)
    return around
