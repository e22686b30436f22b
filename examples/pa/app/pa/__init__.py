"""A small personal assistant: an MCP server with notes and reminders, a chat bot, and a health monitor."""

import os

# Release 2 knows tags: `#words` of a note can be searched for.
RELEASE = int(os.environ.get("PA_RELEASE", "1"))
