#!/usr/bin/env python3
"""Creates n8n's owner, a credential and three workflows with webhooks, and some notes through the MCP server.

    POST /webhook/ask        {person, text}: asks the bot, and answers what it says
    POST /webhook/split      {amount, people}: answers {share}
    POST /webhook/briefing   answers {owner}; owner is the variable PA_OWNER of n8n's environment

All of them ask for the token of pa.env. Settings are taken from .env and pa.env beside this file. Running it again
changes nothing.
"""

import http.cookiejar
import json
import pathlib
import sys
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
OWNER = "owner@example.test"
CREDENTIAL = "assistant"
# How long a service may take until it answers, in seconds.
READY_WITHIN = 300

PEOPLE = {
    "Ada": ("ada@example.org", "+44 20 7946 0958"),
    "Bertil": ("bertil@example.org", "+46 8 463 31 29"),
}
NOTES = [
    ("Ada", "The spare key is at the neighbour's #home"),
    ("Ada", "Tea, milk, Käsespätzle #shopping #home"),
    ("Bertil", "Wi-Fi of the cabin: ask Ada #travel"),
    ("Bertil", "No tags in this one"),
]
REMINDERS = [("Ada", "Renew the passport", "2030-05-01"), ("Bertil", "Dentist", "2030-03-12")]

SPLIT = "const { amount, people } = $input.first().json.body; return [{json: {share: Math.round(amount * 100 / people) / 100}}];"
BRIEFING = "return [{json: {owner: $env.PA_OWNER}}];"


def settings():
    values = {}
    for name in (".env", "pa.env"):
        try:
            lines = (HERE / name).read_text().splitlines()
        except FileNotFoundError:
            sys.exit(f"seed.py: there is no {name}; copy {name}.example first")
        for line in lines:
            key, equals, value = line.partition("=")
            if equals and not key.startswith("#"):
                values[key.strip()] = value.strip().strip("\"'")
    return values


SETTINGS = settings()


def setting(name, default=None):
    value = SETTINGS.get(name) or default
    if value is None:
        sys.exit(f"seed.py: neither .env nor pa.env has {name}")
    return value


# n8n's session is a cookie. A proxy of the environment must not see requests to this machine.
OPENER = urllib.request.build_opener(
    urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()), urllib.request.ProxyHandler({})
)


def call(method, url, body=None, headers=None):
    """The status and the answer as JSON, or its text."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    try:
        with OPENER.open(request, timeout=60) as response:
            return response.status, json.loads(response.read() or b"{}")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")[:400]


def wait(what, url):
    deadline = time.monotonic() + READY_WITHIN
    while True:
        try:
            if call("GET", url)[0] == 200:
                return
        except (OSError, ValueError):
            pass
        if time.monotonic() > deadline:
            sys.exit(f"seed.py: {what} at {url} was not ready within {READY_WITHIN} s")
        time.sleep(0.25)


class N8n:
    def __init__(self):
        self.base = f"http://127.0.0.1:{setting('N8N_PORT', '5678')}/rest"
        wait("n8n", f"{self.base}/settings")

    def call(self, method, path, body=None):
        # n8n binds a session to this value.
        status, answer = call(method, f"{self.base}/{path}", body, {"browser-id": "seed"})
        return status, answer.get("data") if isinstance(answer, dict) else answer

    def need(self, method, path, body=None):
        status, answer = self.call(method, path, body)
        if status not in (200, 201):
            sys.exit(f"seed.py: {method} /rest/{path} answered {status}: {answer}")
        return answer

    def seed(self):
        password = setting("N8N_OWNER_PASSWORD")
        owner = {"email": OWNER, "password": password, "firstName": "Olive", "lastName": "Owner"}
        if self.call("POST", "owner/setup", owner)[0] != 200:
            # There is an owner. 1.x and 2.x name the same field differently.
            self.need("POST", "login", {"email": OWNER, "emailOrLdapLoginId": OWNER, "password": password})
        have = {found["name"]: found["id"] for found in self.need("GET", "credentials")}
        credential = have.get(CREDENTIAL)
        if credential is None:
            header = {"name": "Authorization", "value": f"Bearer {setting('PA_TOKEN')}"}
            body = {"name": CREDENTIAL, "type": "httpHeaderAuth", "data": header}
            credential = self.need("POST", "credentials", body)["id"]
        have = {found["name"] for found in self.need("GET", "workflows")}
        for name in ("ask", "split", "briefing"):
            if name not in have:
                self.activate(self.need("POST", "workflows", workflow(name, credential)))

    def activate(self, made):
        # 1.x takes it as a change of the workflow; 2.x answers 200, ignores that, and has an address for it.
        version = {"versionId": made["versionId"]}
        status, answer = self.call("PATCH", f"workflows/{made['id']}", {"active": True, **version})
        if status != 200 or not answer.get("active"):
            answer = self.need("POST", f"workflows/{made['id']}/activate", version)
        if not answer.get("active"):
            sys.exit(f"seed.py: the workflow {made['name']} was not activated")


def workflow(name, credential):
    """The JSON of a workflow: a webhook, and one node whose result is the answer."""
    signed = {"httpHeaderAuth": {"id": credential, "name": CREDENTIAL}}
    hook = {
        "id": "hook",
        "name": "Webhook",
        "type": "n8n-nodes-base.webhook",
        "typeVersion": 2,
        "position": [0, 0],
        "webhookId": f"{name}-hook",
        "credentials": signed,
        "parameters": {
            "httpMethod": "POST",
            "path": name,
            "authentication": "headerAuth",
            "responseMode": "lastNode",
            "options": {},
        },
    }
    work = {"id": "work", "name": "Work", "position": [220, 0]}
    if name == "ask":
        work |= {
            "type": "n8n-nodes-base.httpRequest",
            "typeVersion": 4.2,
            "credentials": signed,
            "parameters": {
                "method": "POST",
                "url": "http://bot:8080/webhook/chat",
                "authentication": "genericCredentialType",
                "genericAuthType": "httpHeaderAuth",
                "sendBody": True,
                "specifyBody": "json",
                "jsonBody": "={{ JSON.stringify($json.body) }}",
                "options": {},
            },
        }
    else:
        code = SPLIT if name == "split" else BRIEFING
        work |= {"type": "n8n-nodes-base.code", "typeVersion": 2, "parameters": {"jsCode": code}}
    return {
        "name": name,
        "active": False,
        "settings": {"executionOrder": "v1"},
        "nodes": [hook, work],
        "connections": {"Webhook": {"main": [[{"node": "Work", "type": "main", "index": 0}]]}},
    }


class Tools:
    """The MCP server."""

    def __init__(self):
        base = f"http://127.0.0.1:{setting('MCP_PORT', '8201')}"
        wait("the MCP server", f"{base}/health")
        self.url = f"{base}/mcp"
        client = {"name": "seed", "version": "1"}
        self.rpc("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client})

    def rpc(self, method, params):
        headers = {"Authorization": f"Bearer {setting('PA_TOKEN')}", "Accept": "application/json, text/event-stream"}
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        status, answer = call("POST", self.url, message, headers)
        if status != 200 or "result" not in answer or answer["result"].get("isError"):
            sys.exit(f"seed.py: {method} answered {status}: {answer}")
        return answer["result"]

    def tool(self, name, **arguments):
        return self.rpc("tools/call", {"name": name, "arguments": arguments})["structuredContent"]

    def seed(self):
        if self.tool("list_reminders")["reminders"]:
            return
        for name, (email, phone) in PEOPLE.items():
            self.tool("set_contact", person=name, email=email, phone=phone)
        for name, body in NOTES:
            self.tool("add_note", person=name, body=body)
        for name, body, due in REMINDERS:
            self.tool("add_reminder", person=name, body=body, due=due)


if __name__ == "__main__":
    Tools().seed()
    N8n().seed()
    print(f"{len(NOTES)} notes, {len(REMINDERS)} reminders, 1 owner, 1 credential, 3 active workflows")
