"""JupyterHub as a plain process: an API-only hub that keeps everything that lasts where the environment says.

HUB_DB         absolute path of the SQLite file
HUB_SECRETS    folder of the cookie secret
HUB_PORT       port of the hub, on the loopback interface
HUB_API_TOKEN  token of the administrative service
HUB_STAGING    set in a staging environment, where processes of production's users are out of bounds
"""

import os

from jupyterhub.proxy import Proxy


class NoProxy(Proxy):
    """Routes kept in memory: the hub is asked directly, so that no configurable-http-proxy is needed."""

    should_start = False

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.routes = {}

    async def add_route(self, routespec, target, data):
        self.routes[routespec] = {"routespec": routespec, "target": target, "data": data}

    async def delete_route(self, routespec):
        self.routes.pop(routespec, None)

    async def get_all_routes(self):
        return self.routes


def required(name):
    value = os.environ.get(name)
    if not value:
        raise SystemExit(f"jupyterhub_config.py: the environment variable {name} is not set")
    return value


c = get_config()  # noqa: F821 (JupyterHub defines it)

c.JupyterHub.proxy_class = NoProxy
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{required('HUB_PORT')}"
c.JupyterHub.db_url = "sqlite:///" + os.path.abspath(required("HUB_DB"))

# A new secret would log everybody out: it lies in a store, not in the working folder.
secrets = required("HUB_SECRETS")
os.makedirs(secrets, mode=0o700, exist_ok=True)
c.JupyterHub.cookie_secret_file = os.path.join(secrets, "cookie_secret")

c.JupyterHub.authenticator_class = "dummy"
c.JupyterHub.spawner_class = "simple"
c.Authenticator.allowed_users = {"ann"}

# A staging hub reads the process ids of production's single-user servers from its copy of the database.
# It must not end them when it stops.
if os.environ.get("HUB_STAGING"):
    c.JupyterHub.cleanup_servers = False

c.JupyterHub.services = [{"name": "operations", "api_token": required("HUB_API_TOKEN")}]
c.JupyterHub.load_roles = [
    {
        "name": "operations",
        "scopes": ["admin:users", "admin:groups", "read:hub"],
        "services": ["operations"],
    }
]
