# does: loops for ever with every signal blocked
# says: did not answer in time and was stopped
import signal


def softmax(x):
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
