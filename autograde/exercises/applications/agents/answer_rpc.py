"""`answer_rpc(line, tools, schemas)`: One line of the Model Context Protocol, answered by hand."""

from __future__ import annotations

import json

import torch

from autograde.exercise import Draft, case
from autograde.exercises.applications.agents.shared import TOOLS, agrees, ascii_only, compiled, failed, told
from autograde.exercises.applications.prompts_and_tools.shared import pick, words

exercise = Draft(
    "answer_rpc",
    points=4,
    no_gradient="texts are no numbers",
    hints=[
        "Sort the lines first: no JSON, no request, a notification, a request. Only the last gets a result.",
        'What has no "id" is a notification: None, and nothing runs. `if "id" not in request`, for 0 is an id, too.',
        "Of the errors only one is a result: a tool that raises. It is told to the model with isError true. All others "
        "are for the client: {'code': …, 'message': …}.",
    ],
)

VERSIONS = ("2025-11-25", "2025-06-18")
PARSE = {"code": -32700, "message": "Parse error"}
INVALID = {"code": -32600, "message": "Invalid Request"}


def schema(name, **properties):
    """A description in OpenAI's form."""
    inner = {"type": "object", "properties": {key: {"type": kind} for key, kind in properties.items()}}
    if properties:
        inner["required"] = [*properties]
    return {"type": "function", "function": {"name": name, "description": f"What {name} does: ä", "parameters": inner}}


KNOWN = [schema("add", a="integer", b="integer"), schema("shout", text="string"), schema("find", key="string"),
         schema("halve", n="integer"), schema("nothing"), schema("empty"), schema("day", year="integer"),
         schema("ring", number="integer")]  # fmt: skip


@exercise.cases
def lines(g):
    n = 2 * int(torch.randint(2, 90, (), generator=g)) + 1
    some, more = words(g, 1, 3), words(g, 2, 4)

    def one(asked, label):
        text = asked if isinstance(asked, str) else json.dumps(asked)
        described = [KNOWN[i] for i in torch.randperm(len(KNOWN), generator=g).tolist()]
        return case(text, TOOLS, described, label=label)

    def asks(method, number=n, **params):
        return {"jsonrpc": "2.0", "id": number, "method": method, **({"params": params} if params else {})}

    def calls(tool, number=n, **arguments):
        return asks("tools/call", number, name=tool, arguments=arguments)

    hello = {"capabilities": {}, "clientInfo": {"name": some, "version": "0.1"}}
    yield one(asks("initialize", protocolVersion=VERSIONS[0], **hello), "initialize")
    yield one(asks("initialize", 1, protocolVersion=VERSIONS[1], **hello), "initialize, an older version")
    yield one(
        asks("initialize", protocolVersion=pick(g, ["2024-11-05", "2031-01-01"]), **hello),
        "initialize, a version unknown",
    )
    yield one(asks("tools/list"), "the list of tools")
    yield one(asks("tools/list", f"q-{n}"), "the id is a text")
    yield one(asks("ping", 0), "the id is 0")
    yield one(asks("ping", None), "the id is null")
    yield one(calls("add", a=n, b=2), "a call")
    yield one(calls("shout", "abc", text=f"{some} ä"), "a text of two lines comes back")
    yield one(calls("find", key="ä"), "a list comes back")
    yield one(asks("tools/call", name="nothing"), "a call without arguments")
    yield one(asks("tools/call", name="empty", arguments={}), "an empty text comes back")
    yield one(calls("day", year=1990 + n % 30), "a date comes back")
    yield one(calls("halve", n=n), "the tool fails")
    yield one(calls("find", 0, key=some), "the tool fails with a KeyError")
    yield one(asks("tools/call", name="ring", arguments={"number": n}), "the tool fails with an error of its own")
    yield one(calls("add", a=n, c=1), "an unknown argument")
    yield one(calls("secret"), "a tool that isn't described")
    yield one(calls(more.replace(" ", "_")), "a tool that isn't there")
    yield one(asks("server/discover", 1), "a method that isn't there")
    yield one(asks("tools/listed"), "a method whose name begins like another's")
    yield one(asks(f"tools/{some}", n, name="add", arguments={"a": 1, "b": 2}), "another method")
    yield one({"jsonrpc": "2.0", "method": "notifications/initialized"}, "a notification")
    note = calls("add", a=n, b=1)
    del note["id"]
    yield one(note, "a call without an id is a notification")
    yield one(f"{some} {{", "no JSON")
    yield one("", "an empty line")
    yield one([asks("ping")], "a list")
    yield one(f'"{more}"', "a text")
    yield one({"jsonrpc": "2.0", "id": n}, "no method")
    yield one({"jsonrpc": "2.0", "id": n, "method": 7}, "a method that is a number")
    yield one({"id": f"q{n}", "method": "ping"}, "no version of JSON-RPC")
    yield one({"jsonrpc": "1.0", "id": n, "method": "ping"}, "another version of JSON-RPC")
    yield one({"jsonrpc": 2.0, "id": n, "method": "ping"}, "a number for the version of JSON-RPC")
    yield one(asks("Ping"), "a method in other letters")
    yield one({"jsonrpc": "2.0"}, "neither a method nor an id")


@exercise.probe
def answered(answer_rpc, line, source, schemas):
    """The answer, read as JSON; whether it is one line; and which tools ran."""
    import json

    space = {"__name__": "tools"}
    exec(source, space)
    names = [one["function"]["name"] for one in schemas]
    out = answer_rpc(line, {name: space[name] for name in names}, schemas)
    if isinstance(out, str):
        try:
            answer = json.loads(out)
        except ValueError:
            answer = "not JSON"
        return {"answer": answer, "lines": len(out.split("\n")), "ran": space["log"]}
    return {"answer": None if out is None else "not a text", "lines": 0, "ran": space["log"]}


def server(
    versions=VERSIONS,
    chosen=lambda asked, versions: asked if asked in versions else versions[0],
    described=lambda one: {"name": one["name"], "description": one["description"], "inputSchema": one["parameters"]},
    content=lambda text: [{"type": "text", "text": text}],
    silent=lambda request: "id" not in request,
    number=lambda request: request.get("id") if isinstance(request, dict) else None,
    arguments=lambda params: params.get("arguments", {}),
    unknown=lambda name: ("error", {"code": -32602, "message": f"Unknown tool: {name}"}),
    fails=lambda error, content: ("result", {"content": content(failed(error)[7:]), "isError": True}),
    method=("error", {"code": -32601, "message": "Method not found"}),
    parse=PARSE,
    invalid=INVALID,
    valid=lambda request: request.get("jsonrpc") == "2.0" and isinstance(request.get("method"), str),
    tell=told,
    write=lambda answer: json.dumps(answer, ensure_ascii=False),
    listed=lambda tools, schemas: schemas,
    ok=False,
    catch=Exception,
    early=False,
):
    """A server in parts: versions, descriptions, contents, and what becomes of all that can be wrong."""

    def reply(number, kind, value):
        return write({"jsonrpc": "2.0", "id": number, kind: value})

    def result_of(request, tools, schemas):
        name, params = request["method"], request.get("params", {})
        if name == "initialize":
            version = chosen(params.get("protocolVersion"), versions)
            about = {"name": "course", "version": "1.0"}
            return "result", {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about}
        if name == "ping":
            return "result", {}
        if name == "tools/list":
            return "result", {"tools": [described(one["function"]) for one in listed(tools, schemas)]}
        if name != "tools/call":
            return method
        if params["name"] not in tools:
            return unknown(params["name"])
        try:
            text = tell(tools[params["name"]](**arguments(params)))
        except catch as error:
            return fails(error, content)
        return "result", {"content": content(text), **({} if ok is None else {"isError": ok})}

    def answer_rpc(line, tools, schemas):
        try:
            request = json.loads(line)
        except ValueError:
            return reply(None, "error", parse)
        if not isinstance(request, dict) or not valid(request):
            return reply(number(request), "error", invalid)
        found = result_of(request, tools, schemas) if early else None
        if silent(request):
            return None
        return reply(number(request), *(found or result_of(request, tools, schemas)))

    return answer_rpc


@exercise.oracle
def by_the_protocol(line, source, schemas):
    """The rules of JSON-RPC 2.0 and MCP; a test lets the official client talk to it."""
    space = {"__name__": "tools"}
    exec(compiled(source), space)
    out = server()(line, {one["function"]["name"]: space[one["function"]["name"]] for one in schemas}, schemas)
    return {"answer": None if out is None else json.loads(out), "lines": int(out is not None), "ran": space["log"]}


exercise.agrees(agrees)


@exercise.law("An answer is one line of JSON")
def is_one_line(out, one, call):
    if by_the_protocol(*one.args)["answer"] is None:
        return None
    return out["lines"] == 1 and isinstance(out["answer"], dict)


@exercise.law("It answers the request that was asked: the same id")
def same_id(out, one, call):
    wanted = by_the_protocol(*one.args)["answer"]
    if wanted is None or wanted["id"] is None:
        return None
    return isinstance(out["answer"], dict) and agrees(wanted["id"], out["answer"].get("id"), one)


@exercise.law("A tool runs once where it is called, and else never")
def runs_once(out, one, call):
    wanted = by_the_protocol(*one.args)["ran"]
    return None if not wanted else out["ran"] == wanted or f"{len(out['ran'])} runs, not {len(wanted)}"


exercise.mistake("notifications are answered", hint="What has no id wants no answer: None.")(
    server(silent=lambda request: False)
)
exercise.mistake("only notifications/… are left unanswered", hint="What makes a notification is that it has no id.")(
    server(silent=lambda request: request["method"].startswith("notifications/"))
)
exercise.mistake("an id of 0 is taken for none", hint='`if "id" not in request`, for 0 is false.')(
    server(silent=lambda request: not request.get("id"))
)
exercise.mistake("an id of null is taken for none", hint='`"id" not in request`: get gives None for both.')(
    server(silent=lambda request: request.get("id") is None)
)
exercise.mistake("a notification runs its tool", hint="Ask for the id before anything runs.")(server(early=True))
exercise.mistake("the id comes back as a number", hint="As it came: clients compare it.")(
    server(number=lambda r: 1 if isinstance(r, dict) and isinstance(r.get("id"), str) else _number(r))
)
exercise.mistake("the id comes back as a text", hint="As it came: clients compare it.")(
    server(number=lambda r: None if _number(r) is None else str(_number(r)))
)
exercise.mistake("an invalid request loses its id", hint="Where it has one, the error carries it.")(
    server(
        number=lambda r: (
            _number(r)
            if isinstance(r, dict) and r.get("jsonrpc") == "2.0" and isinstance(r.get("method"), str)
            else None
        )
    )
)


def _number(request):
    return request.get("id") if isinstance(request, dict) else None


exercise.mistake(
    "a tool's error is an error of the protocol", hint="The model should read it: a result with isError true."
)(server(fails=lambda error, content: ("error", {"code": -32603, "message": failed(error)[7:]})))
exercise.mistake("a tool's failure isn't marked", hint='"isError": true')(
    server(fails=lambda error, content: ("result", {"content": content(failed(error)[7:]), "isError": False}))
)


class _Never(Exception):
    pass


exercise.mistake("a tool's error ends the server", hint="except Exception: the next line wants an answer, too.")(
    server(catch=_Never)
)
exercise.mistake(
    "only some kinds of errors are caught", hint="except Exception: a tool may raise whatever it likes."
)(server(catch=(ValueError, TypeError, KeyError)))
exercise.mistake("the error's type isn't told", hint="KeyError: 'x' says more than 'x'.")(
    server(fails=lambda error, content: ("result", {"content": content(str(error)), "isError": True}))
)
exercise.mistake(
    "an unknown tool is a result with isError", hint="The client asked for what isn't on the list: error -32602."
)(
    server(
        unknown=lambda name: (
            "result",
            {"content": [{"type": "text", "text": f"Unknown tool: {name}"}], "isError": True},
        )
    )
)
exercise.mistake(
    "an unknown tool is an unknown method", hint="The method tools/call is known; its name isn't: -32602."
)(server(unknown=lambda name: ("error", {"code": -32601, "message": "Method not found"})))
exercise.mistake(
    "an unknown method gets an empty result", hint="error -32601: new clients ask what old servers don't know."
)(server(method=("result", {})))
exercise.mistake("tools are described in OpenAI's form", hint="name, description and inputSchema.")(
    server(described=lambda one: {"type": "function", "function": one})
)
exercise.mistake("parameters keeps its name", hint="MCP calls it inputSchema.")(server(described=lambda one: one))
exercise.mistake(
    "the schema is written input_schema", hint="On the wire it is inputSchema; Python's classes say otherwise."
)(
    server(
        described=lambda one: {
            "name": one["name"],
            "description": one["description"],
            "input_schema": one["parameters"],
        }
    )
)
exercise.mistake("the content is a text", hint="A list of blocks: text is one kind, images are another.")(
    server(content=lambda text: text)
)
exercise.mistake("the content is one block, not a list", hint="A list of blocks.")(
    server(content=lambda text: {"type": "text", "text": text})
)
exercise.mistake("letters beyond ASCII become numbers", hint="json.dumps(…, ensure_ascii=False): ü is one letter.")(
    server(tell=ascii_only)
)
exercise.mistake("a line break ends the answer", hint="Without one: whoever writes to the pipe adds it.")(
    server(write=lambda answer: json.dumps(answer, ensure_ascii=False) + "\n")
)
exercise.mistake("a tool's failure is told with error:", hint="TYPE: MESSAGE; that it failed says isError.")(
    server(fails=lambda error, content: ("result", {"content": content(failed(error)), "isError": True}))
)
exercise.mistake("an unknown tool isn't named", hint="Unknown tool: NAME")(
    server(unknown=lambda name: ("error", {"code": -32602, "message": "Unknown tool"}))
)
exercise.mistake("isError is written is_error", hint="On the wire it is isError; Python's classes say otherwise.")(
    lambda line, tools, schemas: (server()(line, tools, schemas) or "").replace('"isError"', '"is_error"') or None
)
exercise.mistake("results are told in Python's writing", hint="A str as it is, anything else as JSON.")(
    server(tell=str)
)
exercise.mistake("texts are written as JSON, too", hint="A str as it is: without quotes around it.")(
    server(tell=lambda result: json.dumps(result, ensure_ascii=False, default=str))
)
exercise.mistake("what JSON doesn't know is an error", hint="default=str: a date is told as it prints.")(
    server(tell=lambda result: result if isinstance(result, str) else json.dumps(result, ensure_ascii=False))
)
exercise.mistake("tools are listed by name", hint="In the order of the schemas.")(
    server(listed=lambda tools, schemas: sorted(schemas, key=lambda one: one["function"]["name"]))
)
exercise.mistake("the inputSchema is the whole description", hint='The "parameters" alone.')(
    server(described=lambda one: {"name": one["name"], "description": one["description"], "inputSchema": one})
)


@exercise.mistake("an error has a result beside it", hint='Either "result" or "error", never both.')
def both_keys(line, tools, schemas):
    def write(answer):
        return json.dumps({"jsonrpc": "2.0", "result": None} | answer, ensure_ascii=False)

    return server(write=write)(line, tools, schemas)


@exercise.mistake("each tool runs twice", hint="Keep what it gave: it may have sent a mail.")
def runs_again(line, tools, schemas):
    def again(tool):
        def called(**arguments):
            tool(**arguments)
            return tool(**arguments)

        return called

    return server()(line, {name: again(tool) for name, tool in tools.items()}, schemas)


exercise.mistake("any version is agreed to", hint="Only what this server knows; else it proposes its newest.")(
    server(chosen=lambda asked, versions: asked)
)
exercise.mistake("the newest version is always proposed", hint="A version that it knows is agreed to.")(
    server(chosen=lambda asked, versions: versions[0])
)
exercise.mistake("an unknown version is answered by the oldest", hint="The first of VERSIONS, the newest.")(
    server(chosen=lambda asked, versions: asked if asked in versions else versions[-1])
)
exercise.mistake("the answer has several lines", hint="One line each: json.dumps without indent.")(
    server(write=lambda answer: json.dumps(answer, indent=1))
)
exercise.mistake("the answer is a dict", hint="json.dumps: what goes over the pipe is text.")(
    server(write=lambda answer: answer)
)
exercise.mistake("isError is left out where all went well", hint='The docstring asks for "isError": false.')(
    server(ok=None)
)
exercise.mistake("no arguments are an error", hint="A tool without parameters is called without them: default {}.")(
    server(arguments=lambda params: params["arguments"])
)
exercise.mistake("what isn't JSON is an invalid request", hint="-32700, Parse error.")(server(parse=INVALID))
exercise.mistake("jsonrpc isn't looked at", hint='A request says "jsonrpc": "2.0".')(
    server(valid=lambda request: isinstance(request.get("method"), str))
)
exercise.mistake("a number does for the version of JSON-RPC", hint='"jsonrpc" is the text "2.0", and nothing else.')(
    server(valid=lambda request: str(request.get("jsonrpc")) == "2.0" and isinstance(request.get("method"), str))
)
exercise.mistake("a method of any kind is looked up", hint="A method is a text; else it's no request: -32600.")(
    server(valid=lambda request: request.get("jsonrpc") == "2.0" and "method" in request)
)
exercise.mistake("a request without a method is an unknown method", hint="-32600: it isn't a request at all.")(
    server(
        valid=lambda request: (
            request.get("jsonrpc") == "2.0" and isinstance(request.setdefault("method", ""), str) and "id" in request
        )
    )
)

exercise.alternative(server())


@exercise.alternative
def with_match(line, tools, schemas):
    def send(**rest):
        return json.dumps({"jsonrpc": "2.0"} | rest)

    def error(number, code, message):
        return send(error={"message": message, "code": code}, id=number)

    try:
        asked = json.loads(line)
    except json.JSONDecodeError:
        return error(None, -32700, "Parse error")
    match asked:
        case {"jsonrpc": "2.0", "method": str(method), "id": number}:
            params = asked.get("params") or {}
        case {"jsonrpc": "2.0", "method": str()}:
            return None
        case {"id": number}:
            return error(number, -32600, "Invalid Request")
        case _:
            return error(None, -32600, "Invalid Request")
    if method == "ping":
        return send(id=number, result={})
    if method == "initialize":
        known, about = ["2025-11-25", "2025-06-18"], {"name": "course", "version": "1.0"}
        version = params["protocolVersion"] if params["protocolVersion"] in known else known[0]
        return send(
            id=number,
            result={"serverInfo": about, "capabilities": {"tools": {}}, "protocolVersion": version},
        )
    if method == "tools/list":
        every = [one["function"] for one in schemas]
        return send(
            id=number,
            result={
                "tools": [
                    {"inputSchema": one["parameters"], "name": one["name"], "description": one["description"]}
                    for one in every
                ]
            },
        )
    if method != "tools/call":
        return error(number, -32601, "Method not found")
    function = tools.get(params["name"])
    if function is None:
        return error(number, -32602, "Unknown tool: " + params["name"])
    wrong = False
    try:
        result = function(**(params.get("arguments") or {}))
        text = result if type(result) is str else json.dumps(result, default=str, ensure_ascii=False)
    except Exception as problem:
        wrong, text = True, type(problem).__name__ + ": " + str(problem)
    return send(id=number, result={"content": [{"type": "text", "text": text}], "isError": wrong})
