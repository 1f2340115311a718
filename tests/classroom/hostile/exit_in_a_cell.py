# does: ends the process in a cell
# says: ended itself with the exit status 0
import os

os._exit(0)
