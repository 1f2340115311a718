# does: writes to the gradebook, to its own submission, to the libraries
# says: Exception
import os
import sqlite3

told = []
for path in ["@COURSE@/gradebook.db", "@COURSE@/hacked", torch.__file__, "/course/autograde/judging/running.py", "/usr/hacked"]:
    try:
        open(path, "a").write("x")
        told.append(f"wrote {path}")
    except OSError as error:
        told.append(type(error).__name__)
try:
    sqlite3.connect("@COURSE@/gradebook.db").execute("update grade set auto_score = 2")
except sqlite3.Error as error:
    told.append(str(error))
raise Exception(" ".join(told))
