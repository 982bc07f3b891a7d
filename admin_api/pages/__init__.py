"""The pages: static files without data; their scripts ask for the token and call the API."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, Response

router = APIRouter(include_in_schema=False)

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_PAGES = {
    "/": "index.html",
    "/dom.js": "dom.js",
    "/page.js": "page.js",
    "/page.css": "page.css",
    "/docs": "docs.html",
    "/docs.js": "docs.js",
}


def _serve(path: str, name: str) -> None:
    content = files(__name__).joinpath(name).read_bytes()
    media_type = f"{_TYPES[name.rpartition('.')[2]]}; charset=utf-8"
    router.add_api_route(path, lambda: Response(content, media_type=media_type), methods=["GET"], name=name)


for _path, _name in _PAGES.items():
    _serve(_path, _name)


@router.get("/favicon.ico")
def favicon() -> Response:
    """Browsers ask for one unbidden; there is none."""
    return Response(status_code=204)
