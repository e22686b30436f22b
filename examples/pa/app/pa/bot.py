"""The chat bot and its page. It keeps nothing itself: sessions and talks are in Redis, notes behind the MCP server.

    POST /webhook/chat   {"person", "text"} -> {"answer"}; for other programs, with the token
    GET  /api/notes      ?person=&q=&limit=; with the token
    POST /api/notes/file a form with "person" and a text "file", a note a line -> {"kept"}; with the token
    POST /login          {"name"}: a session cookie
    POST /chat           {"text"} -> {"answer"}; GET /chat -> {"name", "messages"}; with the cookie
    GET  /, /page.css, /page.js, /openapi.json, /health
"""

import json
import pathlib
import re
import secrets
import threading

import redis

from pa import RELEASE, outside
from pa.web import Refused, ask, serve, setting

HERE = pathlib.Path(__file__).parent
MCP, N8N = setting("MCP_URL", "http://mcp:8080/mcp"), setting("N8N_URL", "http://n8n:5678")
HELP = "I understand: remember TEXT; find WORDS; remind 2030-12-31 TEXT; split 90 by 3; briefing"
WEEK = 7 * 24 * 3600
MOST_LINES = 100
store = redis.Redis(host=setting("REDIS_HOST", "redis"), decode_responses=True, socket_timeout=5, health_check_interval=30)
initialised = threading.Event()


def rpc(method, params, number=1):
    message = {"jsonrpc": "2.0", "method": method, "params": params}
    if number is not None:
        message["id"] = number
    headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}
    _, _, reply = ask(MCP, message, headers)
    if reply and "error" in reply:
        raise RuntimeError(f"MCP: {reply['error']['message']}")
    return reply and reply["result"]


def tool(name, **arguments):
    """Calls a tool of the MCP server."""
    if not initialised.is_set():
        client = {"name": "pa-bot", "version": str(RELEASE)}
        rpc("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client})
        rpc("notifications/initialized", {}, None)
        initialised.set()
    result = rpc("tools/call", {"name": name, "arguments": arguments})
    if result["isError"]:
        raise Refused(422, result["content"][0]["text"])
    return result["structuredContent"]


def n8n(path, body):
    return ask(f"{N8N}/webhook/{path}", body)[2]


def find(words):
    """Notes with these words. What was found is kept for a minute, unless a note was added since."""
    key = f"found:{RELEASE}:{store.get('notes:changes') or 0}:{words}"
    if kept := store.get(key):
        return json.loads(kept)
    arguments = {"query": words}
    if RELEASE >= 2 and re.fullmatch(r"#\w+", words):
        arguments = {"tag": words}
    notes = tool("search_notes", limit=5, **arguments)["notes"]
    store.set(key, json.dumps(notes), ex=60)
    return notes


def reply(person, text):
    """What the bot says to it."""
    verb, _, rest = text.partition(" ")
    rest = rest.strip()
    match verb.lower():
        case "remember" if rest:
            number = tool("add_note", person=person, body=rest)["id"]
            store.incr("notes:changes")
            outside.chat(f"{person} has a new note, number {number}")
            return f"I keep that as note {number}."
        case "find" if rest:
            notes = find(rest)
            return "\n".join([f"{len(notes)} found:", *(note["body"] for note in notes)]) if notes else "Nothing found."
        case "remind" if found := re.fullmatch(r"(\d{4}-\d\d-\d\d) (.+)", rest):
            tool("add_reminder", person=person, due=found[1], body=found[2])
            outside.mail(f"Reminder for {found[1]}", f"{person}: {found[2]}")
            return f"I remind you on {found[1]}."
        case "split" if found := re.fullmatch(r"(\d+(?:\.\d+)?) by (\d+)", rest):
            share = n8n("split", {"amount": float(found[1]), "people": int(found[2])})["share"]
            return f"{share:.2f} each."
        case "briefing":
            due = tool("list_reminders", person=person)["reminders"]
            owner = n8n("briefing", {})["owner"]
            return f"Good morning, this is the assistant of {owner}. You have {len(due)} reminders."
    return HELP


def talk(person, text):
    answer = reply(person, text)
    with store.pipeline() as lines:
        lines.rpush(f"talk:{person}", json.dumps([person, text]), json.dumps(["assistant", answer]))
        lines.ltrim(f"talk:{person}", -100, -1)
        lines.execute()
    return 200, {"answer": answer}, {}


def webhook(request):
    request.need_token()
    return talk(request.text("person"), request.text("text"))


def notes(request):
    request.need_token()
    limit = request.query.get("limit", "20")
    if not limit.isdigit():
        raise Refused(422, "limit is no number")
    if not (person := request.query.get("person")):
        raise Refused(422, "person is missing")
    return 200, tool("search_notes", person=person, query=request.query.get("q", ""), limit=int(limit)), {}


def upload(request):
    request.need_token()
    form = request.form()
    if not (person := form.get("person", b"").decode("utf-8", "replace").strip()):
        raise Refused(422, "person is missing")
    try:
        lines = [line.strip() for line in form["file"].decode().splitlines()]
    except (KeyError, UnicodeDecodeError):
        raise Refused(422, "file is missing, or no text in UTF-8") from None
    lines = [line for line in lines if line]
    if len(lines) > MOST_LINES:
        raise Refused(422, f"at most {MOST_LINES} notes at a time")
    for line in lines:
        tool("add_note", person=person, body=line)
    store.incr("notes:changes")
    return 200, {"kept": len(lines)}, {}


def login(request):
    session = secrets.token_urlsafe(24)
    store.set(f"session:{session}", request.text("name")[:100], ex=WEEK)
    return 200, {"ok": True}, {"Set-Cookie": f"session={session}; HttpOnly; SameSite=Strict; Path=/; Max-Age={WEEK}"}


def who(request):
    session = request.cookie("session")
    name = session and store.get(f"session:{session}")
    if not name:
        raise Refused(401, "sign in first")
    return name


def chat(request):
    return talk(who(request), request.text("text"))


def talked(request):
    # The page asks at once, whether somebody has signed in or not.
    name = who(request) if request.cookie("session") else None
    lines = store.lrange(f"talk:{name}", 0, -1) if name else []
    messages = [{"from": sender, "text": text} for sender, text in map(json.loads, lines)]
    return 200, {"name": name, "messages": messages}, {}


def health(_):
    store.ping()
    return 200, {"ok": True}, {}


def file(name, kind):
    content = (HERE / name).read_bytes()
    policy = "default-src 'self'; img-src 'self' data:"
    return lambda _: (200, content, {"Content-Type": kind, "Content-Security-Policy": policy})


if __name__ == "__main__":
    outside.start()
    serve(
        "bot",
        {
            "GET /": file("page.html", "text/html; charset=utf-8"),
            "GET /page.css": file("page.css", "text/css; charset=utf-8"),
            "GET /page.js": file("page.js", "text/javascript; charset=utf-8"),
            "GET /openapi.json": file("openapi.json", "application/json"),
            "POST /webhook/chat": webhook,
            "GET /api/notes": notes,
            "POST /api/notes/file": upload,
            "POST /login": login,
            "POST /chat": chat,
            "GET /chat": talked,
            "GET /health": health,
        },
    )
