"""What serves a learner's JupyterLab: no teacher's tools (three seconds, 200 MB), no alarming words."""

import zmq

c = get_config()  # noqa: F821
TOOLS = ("assignment_list", "course_list", "formgrader")
c.ServerApp.jpserver_extensions.update({f"nbgrader.server_extensions.{tool}": False for tool in TOOLS})
# A kernel that talks over TCP in plain text warns of eavesdropping in the terminal, though it never leaves the machine.
if zmq.has("curve"):
    c.KernelManager.transport_encryption = "auto"
