"""What the services share: settings, answering HTTP, asking over HTTP."""

import email.parser
import email.policy
import http.cookies
import http.server
import json
import os
import signal
import threading
import urllib.parse
import urllib.request

# Only what is inside the stack is asked through this; a proxy of the environment has no business with it.
INSIDE = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def setting(name, default=None):
    value = os.environ.get(name) or default
    if value is None:
        raise SystemExit(f"pa: the environment variable {name} is not set")
    return value


def token():
    """What callers must show: `Authorization: Bearer ...`."""
    return setting("PA_TOKEN")


def ask(url, body=None, headers=None, timeout=30):
    """Sends JSON (GET without a body) with the token; status, headers, JSON. Raises OSError."""
    data = None if body is None else json.dumps(body).encode()
    all_headers = {"Authorization": f"Bearer {token()}", "Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, data=data, headers=all_headers)
    with INSIDE.open(request, timeout=timeout) as response:
        text = response.read()
        return response.status, response.headers, json.loads(text) if text else None


class Refused(Exception):
    """An answer other than success."""

    def __init__(self, status, why):
        super().__init__(why)
        self.status = status


class Request:
    def __init__(self, handler):
        address = urllib.parse.urlsplit(handler.path)
        self.method, self.path, self.headers = handler.command, address.path, handler.headers
        self.query = dict(urllib.parse.parse_qsl(address.query))
        try:
            self.body = handler.rfile.read(min(int(handler.headers.get("Content-Length") or 0), 1 << 20))
        except ValueError:
            raise Refused(400, "Content-Length is no number") from None

    def json(self):
        try:
            value = json.loads(self.body)
        except ValueError:
            raise Refused(400, "the body is not JSON") from None
        if not isinstance(value, dict):
            raise Refused(400, "the body is no object")
        return value

    def text(self, name):
        """A text of the body that must be there."""
        value = self.json().get(name)
        if not isinstance(value, str) or not value.strip():
            raise Refused(422, f"{name} is missing")
        return value.strip()

    def form(self):
        """The fields of a form with files, by name, as bytes."""
        kind = self.headers.get("Content-Type", "")
        if not kind.startswith("multipart/form-data"):
            raise Refused(415, "the body is no form with files")
        head = f"Content-Type: {kind}\r\n\r\n".encode("latin-1", "replace")
        parts = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + self.body)
        if not parts.is_multipart():
            raise Refused(400, "the form cannot be read")
        fields = {part.get_param("name", header="content-disposition"): part for part in parts.iter_parts()}
        return {name: part.get_payload(decode=True) or b"" for name, part in fields.items() if name}

    def cookie(self, name):
        found = http.cookies.SimpleCookie(self.headers.get("Cookie", "")).get(name)
        return found.value if found else None

    def need_token(self):
        if self.headers.get("Authorization") != f"Bearer {token()}":
            raise Refused(401, "the token is missing or wrong")


def serve(name, routes, port=8080):
    """Answers until SIGTERM. Routes: {"GET /path": function(Request) -> (status, JSON or bytes, headers)}."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def answer(self):
            try:
                request = Request(self)
                route = routes.get(f"{request.method} {request.path}")
                if route is None:
                    known = any(r.split(" ")[1] == request.path for r in routes)
                    raise Refused(405 if known else 404, "there is no such thing here")
                status, body, headers = route(request)
            except Refused as why:
                status, body, headers = why.status, {"error": str(why)}, {}
            except Exception as error:  # whatever it is, who asked gets an answer and the log says why
                print(f"{name}: {self.command} {self.path.split('?')[0]}: {type(error).__name__}: {error}", flush=True)
                status, body, headers = 500, {"error": "it did not work; see the log"}, {}
            data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            for key, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *arguments):
            pass

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 128

    server = Server(("0.0.0.0", port), Handler)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"{name}: on port {port}", flush=True)
    server.serve_forever()
