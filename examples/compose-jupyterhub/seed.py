#!/usr/bin/env python3
"""Creates users and groups through the API of a running hub; running it again changes nothing.

HUB_API_TOKEN is taken from the environment or from .env beside this file.
"""

import argparse
import json
import os
import pathlib
import sys
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
# One request creates so many users: the hub answers only after all of them.
BATCH = 100
# A proxy of the environment must not see requests to this machine.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def token():
    if value := os.environ.get("HUB_API_TOKEN"):
        return value
    try:
        lines = (HERE / ".env").read_text().splitlines()
    except FileNotFoundError:
        sys.exit("seed.py: HUB_API_TOKEN is not set and there is no .env; copy .env.example first")
    for line in lines:
        name, _, value = line.partition("=")
        if name.strip() == "HUB_API_TOKEN":
            return value.strip().strip("\"'")
    sys.exit("seed.py: .env has no HUB_API_TOKEN")


def call(base, method, path, body=None):
    request = urllib.request.Request(
        f"{base}/hub/api/{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"token {token()}", "Content-Type": "application/json"},
    )
    try:
        with OPENER.open(request, timeout=60) as response:
            return response.status, json.loads(response.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except OSError as error:
        sys.exit(f"seed.py: no hub answers at {base}: {error}")


def expect(answer, *codes):
    status, body = answer
    if status not in codes:
        sys.exit(f"seed.py: the hub answered {status}: {body}")


def main():
    parser = argparse.ArgumentParser(description="Create users and groups through the API of a running hub.")
    parser.add_argument("--url", default="http://127.0.0.1:18081")
    parser.add_argument("--users", type=int, default=25)
    parser.add_argument("--groups", type=int, default=3)
    options = parser.parse_args()
    if options.users < 0 or options.groups < 0:
        parser.error("--users and --groups must not be negative")

    users = [f"user{number:04}" for number in range(1, options.users + 1)]
    groups = [f"lab{number}" for number in range(1, options.groups + 1)]
    for start in range(0, len(users), BATCH):
        # 409: all of them exist.
        expect(call(options.url, "POST", "users", {"usernames": users[start : start + BATCH]}), 201, 409)
    for index, group in enumerate(groups):
        expect(call(options.url, "POST", f"groups/{group}"), 201, 409)
        members = users[index :: len(groups)]
        if members:
            expect(call(options.url, "POST", f"groups/{group}/users", {"users": members}), 200)
    print(f"{len(users)} users in {len(groups)} groups")


if __name__ == "__main__":
    main()
