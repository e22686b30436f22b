"""JupyterHub in a container: an API-only hub on PostgreSQL.

HUB_DB_PASSWORD  password of the role `hub` in the database `hub` on the host `db`
HUB_API_TOKEN    token of the administrative service
"""

import os
from urllib.parse import quote

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
c.JupyterHub.hub_bind_url = "http://0.0.0.0:8081"
c.JupyterHub.db_url = f"postgresql+psycopg2://hub:{quote(required('HUB_DB_PASSWORD'), safe='')}@db/hub"

# On a volume: with a new secret everybody would be logged out.
c.JupyterHub.cookie_secret_file = "/srv/cookie_secret"

c.JupyterHub.authenticator_class = "dummy"
c.JupyterHub.spawner_class = "simple"
c.Authenticator.allowed_users = {"ann"}

c.JupyterHub.services = [{"name": "operations", "api_token": required("HUB_API_TOKEN")}]
c.JupyterHub.load_roles = [
    {
        "name": "operations",
        "scopes": ["admin:users", "admin:groups", "tokens", "read:hub"],
        "services": ["operations"],
    }
]
