"""What runs inside the sandbox, beside a learner's code.

This folder and what its modules import is all of `autograde` that a learner's code can see there.
"""
