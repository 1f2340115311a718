"""The server that learners write by hand, in a process of its own, against the official client of MCP."""

import asyncio
import os
import sys

import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp.shared.exceptions import MCPError

from autograde.exercises import find
from autograde.repository import ROOT

SERVER = """
import sys

from autograde.exercises import find
from autograde.exercises.applications.agents.answer_rpc import KNOWN
from autograde.exercises.applications.agents.shared import TOOLS

space = {"__name__": "tools"}
exec(TOOLS, space)
tools = {one["function"]["name"]: space[one["function"]["name"]] for one in KNOWN}
for line in sys.stdin:
    answer = find("answer_rpc").alternatives[int(sys.argv[1])](line, tools, KNOWN)
    if answer is not None:
        print(answer, flush=True)
"""
CALLS = [("add", {"a": 2, "b": 3}), ("find", {"key": "ä"}), ("nothing", None), ("halve", {"n": 3}), ("secret", {})]


async def told(started):
    """What the client finds, and what it is told."""
    async with Client(stdio_client(started)) as client:
        tools, results = (await client.list_tools()).tools, []
        for name, arguments in CALLS:
            try:
                found = await client.call_tool(name, arguments)
                results.append((found.content[0].text, found.is_error))
            except MCPError as error:
                results.append((error.error.code, error.error.message))
        return client.protocol_version, tools, results


@pytest.mark.parametrize("which", range(len(find("answer_rpc").alternatives)))
def test_the_official_client_understands_it(tmp_path, which):
    (tmp_path / "server.py").write_text(SERVER, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = StdioServerParameters(
        command=sys.executable, args=[str(tmp_path / "server.py"), str(which)], env=environment
    )
    version, tools, results = asyncio.run(told(started))
    assert version == "2025-11-25"  # it asks for a newer one first, and falls back
    assert [tool.name for tool in tools] == ["add", "shout", "find", "halve", "nothing", "empty", "day", "ring"]
    assert tools[0].input_schema["properties"] == {"a": {"type": "integer"}, "b": {"type": "integer"}}
    assert results == [
        ("5", False),
        ('[1, 2.5, null, "ü"]', False),
        ("null", False),
        ("ValueError: 3 is odd", True),
        (-32602, "Unknown tool: secret"),
    ]
