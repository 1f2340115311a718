#!/bin/bash
# jupyter-server 2.21.1: to tornado 6.6.1 it gives the interval of its pings in milliseconds; tornado takes seconds.
#
# Guess: the connection that a notebook has to its kernel is pinged every 30 s, by tornado or by jupyter-server, and the
# two agree on what counts as too late.
# Seen: JupyterLab's handler has properties of the names that tornado reads, `ping_interval` and `ping_timeout`, with
# 30000 and 90000, meant as milliseconds. Its own pings come every 30 s; tornado starts pings of its own on the same
# connection, every 8 hours, and warns, at the first connection of each server, that 90000 is more than 30000.
#
# Where it matters: the warning stands in the terminal of everybody who opens a notebook, and nothing is wrong.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check jupyter-server==2.21.1 tornado==6.6.1 ipykernel==7.4.0
cat > "$folder/ask.py" <<'PYTHON'
import asyncio
import gc
import json
import logging
import socket

from jupyter_server.serverapp import ServerApp
from jupyter_server.services.kernels.websocket import KernelWebsocketHandler
from tornado import httpclient, websocket

TOKEN = {"Authorization": "token t"}
heard = []


class Listener(logging.Handler):
    def emit(self, record):
        heard.append(record.getMessage())


async def talk(port):
    client = httpclient.AsyncHTTPClient()
    url = f"http://127.0.0.1:{port}/api/kernels"
    made = json.loads((await client.fetch(url, method="POST", body="{}", headers=TOKEN)).body)
    ask = httpclient.HTTPRequest(f"ws://127.0.0.1:{port}/api/kernels/{made['id']}/channels", headers=TOKEN)
    connection = await websocket.websocket_connect(ask)
    await asyncio.sleep(1)
    (handler,) = [each for each in gc.get_objects() if isinstance(each, KernelWebsocketHandler)]
    print("jupyter-server pings every", handler.ping_callback.callback_time / 1000, "s")
    print("tornado pings every", handler.ws_connection.ping_interval, "s")
    connection.close()
    await app.kernel_manager.shutdown_all()
    app.io_loop.stop()


with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
app = ServerApp()
app.initialize(["--no-browser", "--allow-root", f"--port={port}", "--IdentityProvider.token=t", "--log-level=ERROR"])
logging.getLogger("tornado.general").addHandler(Listener())
app.io_loop.add_callback(lambda: asyncio.ensure_future(talk(port)))
app.start()
print(*[line for text in heard for line in text.split("\n") if "ping" in line], sep="\n")
PYTHON
cd "$folder"
HOME="$folder" venv/bin/python -W ignore ask.py 2>err > told || { tail err; exit 1; }
cat told
cat > seen <<'TEXT'
jupyter-server pings every 30.0 s
tornado pings every 30000 s
The websocket_ping_timeout (90000) cannot be longer than the websocket_ping_interval (30000).
Setting websocket_ping_timeout=30000
TEXT
if cmp -s told seen; then echo "as seen"; else echo "it has changed"; exit 1; fi
