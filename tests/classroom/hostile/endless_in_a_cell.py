# does: loops for ever in a cell, with every signal blocked
# says: did not answer in time and was stopped
import signal

signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
while True:
    pass
