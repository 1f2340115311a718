"""The sandbox from outside: how it is shut, started and talked to."""
