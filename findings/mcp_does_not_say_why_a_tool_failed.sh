#!/bin/bash
# mcp 2.3.0: a server's tool raises, and the client is told that it failed, but not why; a list's items are one text each.
#
# Guess: a tool that raises ValueError("no such place") gives a result with is_error and that message, so that a model can
# mend its call; a tool that doesn't exist gives a protocol error, -32602; an empty list is the text "[]"; an argument
# that the tool doesn't have is refused; NaN comes as NaN.
# Seen: "Error executing tool look", without the message (that of mcp's own class ToolError is told). A
# tool that doesn't exist gives a result with is_error. [1.5, 2.0] comes as two texts, and an empty list as no content at
# all. An unknown argument is dropped without a word. NaN becomes null on the way, and the client raises RuntimeError.
#
# Where it matters: a loop that reads only the content gives its model an empty observation, or an error without a reason.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check mcp==2.3.0
cat > "$folder/ask.py" <<'PYTHON'
import asyncio

from mcp import Client
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("places", log_level="CRITICAL")


@server.tool()
def look(place: str) -> str:
    raise ValueError("no such place")


@server.tool()
def told(place: str) -> str:
    raise ToolError("no such place")


@server.tool()
def halves(numbers: list[float]) -> list[float]:
    return [number / 2 for number in numbers]


@server.tool()
def nan() -> float:
    return float("nan")


async def main():
    async with Client(server) as client:
        for name, arguments in [
            ("look", {"place": "x"}), ("told", {"place": "x"}), ("jump", {}), ("halves", {"numbers": [3, 4]}),
            ("halves", {"numbers": []}), ("halves", {"numbers": [2], "other": 1}), ("nan", {}),
        ]:
            try:
                result = await client.call_tool(name, arguments)
                print(name, [block.text for block in result.content], result.is_error)
            except Exception as error:
                print(name, "raises", type(error).__name__)


asyncio.run(main())
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" 2>/dev/null | tee "$folder/told"
cat > "$folder/seen" <<'SEEN'
look ['Error executing tool look'] True
told ['Error executing tool told: no such place'] True
jump ['Unknown tool: jump'] True
halves ['1.5', '2.0'] False
halves [] False
halves ['1.0'] False
nan raises RuntimeError
SEEN
if cmp -s "$folder/told" "$folder/seen"; then echo "as seen"; else echo "it has changed"; exit 1; fi
