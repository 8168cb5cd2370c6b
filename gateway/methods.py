"""Which methods a path has."""

from collections.abc import Iterable, Sequence

from starlette.routing import BaseRoute, Match, Mount
from starlette.types import Scope

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def allowed(routes: Iterable[BaseRoute], scope: Scope) -> Sequence[str]:
    """Of all the routes with the request's path, with HEAD and OPTIONS. Empty if there is no such path."""
    routes = list(routes)
    found = [method for method in _METHODS if any(_has(route, method, scope) for route in routes)]
    if not found:
        return ()
    return [*found, *(["HEAD"] if "GET" in found else []), "OPTIONS"]


def _has(route: BaseRoute, method: str, scope: Scope) -> bool:
    if isinstance(route, Mount) and method != "GET":  # static files
        return False
    asked = {"type": "http", "method": method, "path": scope["path"], "root_path": "", "headers": []}
    return route.matches(asked)[0] is Match.FULL
