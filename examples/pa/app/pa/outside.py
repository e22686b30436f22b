"""What leaves the stack: messages to a chat's incoming webhook, and mail. Sent in the background, so that nobody waits."""

import email.message
import json
import queue
import smtplib
import threading
import urllib.request

from pa.web import setting

waiting = queue.Queue(maxsize=1000)


def chat(text):
    """A message to the webhook CHAT_URL, as Slack and its like take it."""
    if url := setting("CHAT_URL", ""):
        put(("chat", url, text))


def mail(subject, text):
    """A mail to MAIL_TO by way of SMTP_HOST."""
    if host := setting("SMTP_HOST", ""):
        put(("mail", host, subject, text))


def put(item):
    try:
        waiting.put_nowait(item)
    except queue.Full:
        print(f"outside: too much waits; a {item[0]} is not sent", flush=True)


def send(kind, where, *parts):
    if kind == "chat":
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {setting('CHAT_TOKEN', '')}"}
        body = json.dumps({"text": parts[0]}).encode()
        # With the proxy of the environment, if there is one: this one is outside.
        with urllib.request.urlopen(urllib.request.Request(where, data=body, headers=headers), timeout=10):
            return
    message = email.message.EmailMessage()
    message["From"], message["To"] = setting("MAIL_FROM", "assistant@example.org"), setting("MAIL_TO")
    message["Subject"] = parts[0]
    message.set_content(parts[1])
    with smtplib.SMTP(where, int(setting("SMTP_PORT", "25")), timeout=10) as server:
        if user := setting("SMTP_USER", ""):
            server.login(user, setting("SMTP_PASSWORD"))
        server.send_message(message)


def work():
    while True:
        item = waiting.get()
        try:
            send(*item)
        except OSError as error:  # smtplib's and urllib's errors are of this kind
            print(f"outside: {item[0]} not sent: {type(error).__name__}", flush=True)


def start():
    threading.Thread(target=work, daemon=True).start()
