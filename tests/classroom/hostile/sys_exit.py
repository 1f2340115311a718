# does: leaves by sys.exit
# says: SystemExit
import sys


def softmax(x):
    sys.exit(0)


sys.exit("2.0")
