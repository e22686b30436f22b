"""A server of the Model Context Protocol over streamable HTTP, without sessions: notes and reminders as tools.

    POST /mcp      JSON-RPC: initialize, ping, tools/list, tools/call; notifications are taken and need no answer
    GET  /health   200 when the database answers
"""

import datetime
import json
import re
import urllib.parse

from pa import RELEASE
from pa.database import open_database
from pa.web import Refused, serve

PROTOCOLS = ["2025-06-18", "2025-03-26"]
database = None


class Unusable(Exception):
    """What a tool was given is of no use: told to the model as the tool's result."""


def text(arguments, name, required=True):
    value = arguments.get(name)
    if value in (None, "") and not required:
        return None
    if not isinstance(value, str) or not value.strip():
        raise Unusable(f"{name} must be a text")
    return value.strip()


def person(arguments):
    """The id of whoever it is for; somebody new is added."""
    name = text(arguments, "person")
    # The update has the row returned also where there is one.
    sql = "insert into people (name) values (%s) on conflict (name) do update set name = excluded.name returning id"
    return database.run(sql, (name,))[0]["id"]


def shown(row):
    return {key: value.isoformat() if hasattr(value, "isoformat") else value for key, value in row.items()}


def set_contact(arguments):
    values = (text(arguments, "email", False), text(arguments, "phone", False), person(arguments))
    database.run("update people set email = %s, phone = %s where id = %s", values)
    return {"person": arguments["person"].strip()}


def add_note(arguments):
    body = text(arguments, "body")
    if RELEASE >= 2:
        tags = sorted({word.lower() for word in re.findall(r"#(\w+)", body)})
        sql = "insert into notes (person, body, tags) values (%s, %s, %s) returning id"
        return database.run(sql, (person(arguments), body, tags))[0]
    return database.run("insert into notes (person, body) values (%s, %s) returning id", (person(arguments), body))[0]


def search_notes(arguments):
    limit = arguments.get("limit", 20)
    if not isinstance(limit, int) or not 1 <= limit <= 100:
        raise Unusable("limit must be a number from 1 to 100")
    word = text(arguments, "query", False) or ""
    tags = ", tags" if RELEASE >= 2 else ""
    where, values = "strpos(lower(body), lower(%s)) > 0", [word]
    if name := text(arguments, "person", False):
        where, values = where + " and p.name = %s", [*values, name]
    if RELEASE >= 2 and (tag := text(arguments, "tag", False)):
        where, values = where + " and tags @> array[%s]", [*values, tag.lower().lstrip("#")]
    sql = f"""select n.id, p.name as person, body, created_at{tags} from notes n join people p on p.id = n.person
              where {where} order by n.id desc limit %s"""
    return {"notes": [shown(row) for row in database.run(sql, [*values, limit])]}


def add_reminder(arguments):
    try:
        due = datetime.date.fromisoformat(text(arguments, "due"))
    except ValueError:
        raise Unusable("due must be a date such as 2030-12-31") from None
    sql = "insert into reminders (person, body, due) values (%s, %s, %s) returning id"
    return database.run(sql, (person(arguments), text(arguments, "body"), due))[0]


def list_reminders(arguments):
    sql = """select r.id, p.name as person, body, due from reminders r join people p on p.id = r.person
             where %s::text is null or p.name = %s order by due, r.id limit 100"""
    name = text(arguments, "person", False)
    return {"reminders": [shown(row) for row in database.run(sql, (name, name))]}


def tool(function, about, required=(), **properties):
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return function, {"name": function.__name__, "description": about, "inputSchema": schema}


TEXT, NUMBER = {"type": "string"}, {"type": "integer", "minimum": 1, "maximum": 100}
TOOLS = [
    tool(set_contact, "Sets how a person is reached.", ["person"], person=TEXT, email=TEXT, phone=TEXT),
    tool(add_note, "Keeps a note.", ["person", "body"], person=TEXT, body=TEXT),
    tool(search_notes, "Finds notes that contain a text.", query=TEXT, person=TEXT, limit=NUMBER, **({"tag": TEXT} if RELEASE >= 2 else {})),
    tool(add_reminder, "Keeps a reminder for a day.", ["person", "body", "due"], person=TEXT, body=TEXT, due=TEXT),
    tool(list_reminders, "Lists reminders by day.", person=TEXT),
]
FUNCTIONS = {description["name"]: function for function, description in TOOLS}


def call(name, arguments):
    try:
        result = FUNCTIONS[name](arguments)
    except Unusable as why:
        return {"content": [{"type": "text", "text": str(why)}], "isError": True}
    return {"content": [{"type": "text", "text": json.dumps(result)}], "structuredContent": result, "isError": False}


def answer(message):
    """The result for a request of JSON-RPC; raises LookupError with code and text."""
    params = message.get("params") or {}
    match message["method"]:
        case "initialize":
            wanted = params.get("protocolVersion")
            return {
                "protocolVersion": wanted if wanted in PROTOCOLS else PROTOCOLS[0],
                "capabilities": {"tools": {"listChanged": False}},
                "serverInfo": {"name": "pa", "version": str(RELEASE)},
            }
        case "ping":
            return {}
        case "tools/list":
            return {"tools": [description for _, description in TOOLS]}
        case "tools/call":
            name, arguments = params.get("name"), params.get("arguments") or {}
            if name not in FUNCTIONS or not isinstance(arguments, dict):
                raise LookupError(-32602, f"there is no tool {name!r}")
            return call(name, arguments)
        case other:
            raise LookupError(-32601, f"there is no method {other!r}")


def mcp(request):
    request.need_token()
    # A page of somebody else's, open in a browser here, must not get in by a name that leads to this machine.
    if (origin := request.headers.get("Origin")) and urllib.parse.urlsplit(origin).hostname not in ("localhost", "127.0.0.1"):
        raise Refused(403, "this origin is not allowed")
    if request.headers.get("MCP-Protocol-Version", PROTOCOLS[0]) not in PROTOCOLS:
        raise Refused(400, "this version of the protocol is not known")
    message = request.json()
    if message.get("jsonrpc") != "2.0" or not isinstance(message.get("method"), str):
        raise Refused(400, "this is no request of JSON-RPC 2.0")
    if "id" not in message:
        return 202, None, {}
    reply = {"jsonrpc": "2.0", "id": message["id"]}
    try:
        reply["result"] = answer(message)
    except LookupError as why:
        reply["error"] = {"code": why.args[0], "message": why.args[1]}
    return 200, reply, {}


def health(_):
    database.run("select 1")
    return 200, {"ok": True}, {}


if __name__ == "__main__":
    database = open_database()
    serve("mcp", {"POST /mcp": mcp, "GET /health": health})
