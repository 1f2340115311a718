#!/bin/bash
# mcp 2.3.0: a tool with the parameter text: str | None gets None for the text "null", and refuses the text "[1, 2]".
#
# Guess: a parameter that is declared as a text gets the text that was sent, whether it may also be missing or not.
# Seen: with text: str, so. With text: str | None (or without a type) the server first reads the text as JSON, for
# clients that send lists as texts: "null" arrives as None, and a text that is an object or a list ends in "Input should
# be a valid string". Numbers and quoted words are left alone. The schema that the client is shown promises a string.
#
# Where it matters: tools that save, send or run a text: notes, files, code, queries with a JSON body. The model sends
# what the schema asks for and is told that it isn't a string; a default of "" instead of None avoids it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check mcp==2.3.0
cat > "$folder/ask.py" <<'PYTHON'
import asyncio

from mcp import Client
from mcp.server.mcpserver import MCPServer

server = MCPServer("notes", log_level="CRITICAL")


@server.tool()
def plain(text: str) -> str:
    return f"got {text!r}"


@server.tool()
def optional(text: str | None = None) -> str:
    return f"got {text!r}"


async def main():
    async with Client(server) as client:
        for text in ("hello", "12", "null", "[1, 2]", '{"a": 1}'):
            for tool in ("plain", "optional"):
                result = await client.call_tool(tool, {"text": text})
                told = result.content[0].text
                print(f"{tool} {text}: {told if told.startswith('got') else 'refused'}")


asyncio.run(main())
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="plain hello: got 'hello'
optional hello: got 'hello'
plain 12: got '12'
optional 12: got '12'
plain null: got 'null'
optional null: got None
plain [1, 2]: got '[1, 2]'
optional [1, 2]: refused
plain {\"a\": 1}: got '{\"a\": 1}'
optional {\"a\": 1}: refused"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi
