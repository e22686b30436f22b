#!/usr/bin/env python3
"""Creates the owner, a credential and three workflows with webhooks through the API of a running n8n 1.x or 2.x.

    POST /webhook/order    asks for the key in the header x-api-key; answers {order, total}
    POST /webhook/banner   answers {shop, n}; shop is the variable SHOP_NAME of n8n's environment
    GET  /webhook/menu     answers {dish, since, price, guests, total} for ?guests=N

ORDER_API_KEY and N8N_OWNER_PASSWORD are taken from the environment or from .env beside this file. Running it
again changes nothing.
"""

import argparse
import http.cookiejar
import json
import os
import pathlib
import sys
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
OWNER = "owner@example.test"
CREDENTIAL = "order key"
# How long n8n may take from its first answer until its interface is there, in seconds.
READY_WITHIN = 180

# Each is the code of one node, which answers for the webhook.
WORKFLOWS = {
    "order-total": (
        "POST",
        "order",
        "const order = $input.first().json.body; return [{json: {order: order.id, total: order.qty * order.price}}];",
    ),
    "shop-banner": (
        "POST",
        "banner",
        "return [{json: {shop: $env.SHOP_NAME, n: $input.first().json.body.n}}];",
    ),
    # Asked on production, too: it keeps no executions.
    "menu": (
        "GET",
        "menu",
        "const guests = Number($input.first().json.query.guests); const price = 14.5; "
        "return [{json: {dish: 'Käsespätzle', since: '2024-03-01T08:00:00.000Z', price, guests, total: guests * price}}];",
    ),
}


def setting(name):
    if value := os.environ.get(name):
        return value
    try:
        lines = (HERE / ".env").read_text().splitlines()
    except FileNotFoundError:
        sys.exit(f"seed.py: {name} is not set and there is no .env; copy .env.example first")
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip() == name:
            return value.strip().strip("\"'")
    sys.exit(f"seed.py: .env has no {name}")


class Client:
    def __init__(self, base):
        self.base = base.rstrip("/")
        # n8n's session is a cookie. A proxy of the environment must not see requests to this machine.
        self.opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()), urllib.request.ProxyHandler({})
        )

    def call(self, method, path, body=None):
        """The status and the answer's `data`, or its text."""
        request = urllib.request.Request(
            f"{self.base}/rest/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            # n8n binds a session to this value.
            headers={"Content-Type": "application/json", "browser-id": "seed"},
        )
        try:
            with self.opener.open(request, timeout=60) as response:
                return response.status, json.loads(response.read() or b"{}").get("data")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")[:400]

    def need(self, method, path, body=None):
        status, answer = self.call(method, path, body)
        if status not in (200, 201):
            sys.exit(f"seed.py: {method} /rest/{path} answered {status}: {answer}")
        return answer

    def wait(self):
        deadline = time.monotonic() + READY_WITHIN
        while True:
            try:
                if self.call("GET", "settings")[0] == 200:
                    return
            except (OSError, ValueError):
                pass
            if time.monotonic() > deadline:
                sys.exit(f"seed.py: n8n at {self.base} was not ready within {READY_WITHIN} s")
            time.sleep(0.25)


def workflow(name, method, path, code, credential):
    """The JSON of a workflow: a webhook, and a Code node whose result is the answer."""
    keeps = {"saveDataSuccessExecution": "none", "saveDataErrorExecution": "none"} if name == "menu" else {}
    hook = {
        "id": "hook",
        "name": "Webhook",
        "type": "n8n-nodes-base.webhook",
        "typeVersion": 2,
        "position": [0, 0],
        "webhookId": f"{path}-hook",
        "parameters": {"httpMethod": method, "path": path, "responseMode": "lastNode", "options": {}},
    }
    if credential:
        hook["parameters"]["authentication"] = "headerAuth"
        hook["credentials"] = {"httpHeaderAuth": {"id": credential, "name": CREDENTIAL}}
    node = {
        "id": "code",
        "name": "Code",
        "type": "n8n-nodes-base.code",
        "typeVersion": 2,
        "position": [220, 0],
        "parameters": {"jsCode": code},
    }
    return {
        "name": name,
        "active": False,
        "settings": {"executionOrder": "v1", **keeps},
        "nodes": [hook, node],
        "connections": {"Webhook": {"main": [[{"node": "Code", "type": "main", "index": 0}]]}},
    }


def activate(client, made):
    # 1.x takes it as a change of the workflow; 2.x answers 200, ignores that, and has an address for it.
    status, answer = client.call(
        "PATCH", f"workflows/{made['id']}", {"active": True, "versionId": made["versionId"]}
    )
    if status == 200 and answer.get("active"):
        return
    answer = client.need("POST", f"workflows/{made['id']}/activate", {"versionId": made["versionId"]})
    if not answer.get("active"):
        sys.exit(f"seed.py: the workflow {made['name']} was not activated")


def main():
    parser = argparse.ArgumentParser(description="Create an owner, a credential and three webhooks in a running n8n.")
    parser.add_argument("--url", default="http://127.0.0.1:5678")
    options = parser.parse_args()
    password, key = setting("N8N_OWNER_PASSWORD"), setting("ORDER_API_KEY")

    client = Client(options.url)
    client.wait()
    owner = {"email": OWNER, "password": password, "firstName": "Olive", "lastName": "Owner"}
    if client.call("POST", "owner/setup", owner)[0] != 200:
        # There is an owner. 1.x and 2.x name the same field differently.
        client.need("POST", "login", {"email": OWNER, "emailOrLdapLoginId": OWNER, "password": password})

    have = {found["name"]: found["id"] for found in client.need("GET", "credentials")}
    credential = have.get(CREDENTIAL)
    if credential is None:
        body = {"name": CREDENTIAL, "type": "httpHeaderAuth", "data": {"name": "x-api-key", "value": key}}
        credential = client.need("POST", "credentials", body)["id"]

    have = {found["name"] for found in client.need("GET", "workflows")}
    for name, (method, path, code) in WORKFLOWS.items():
        if name not in have:
            body = workflow(name, method, path, code, credential if name == "order-total" else None)
            activate(client, client.need("POST", "workflows", body))
    print(f"1 owner, 1 credential, {len(WORKFLOWS)} active workflows")


if __name__ == "__main__":
    main()
