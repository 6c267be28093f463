"""The page at /docs: the API to be read and tried, with nothing from other hosts (files of fastapi_offline)."""

import base64
import hashlib
import re

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse

_FILES = "/static-offline-docs"
"""Where fastapi_offline mounts its files."""
_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


def add_docs(app: FastAPI) -> None:
    """Add the page. A browser runs only its own script, and asks only this origin; no other page may frame it."""
    page = get_swagger_ui_html(
        openapi_url=app.openapi_url or "",
        title=f"{app.title} - Swagger UI",
        swagger_js_url=f"{_FILES}/swagger-ui-bundle.js",
        swagger_css_url=f"{_FILES}/swagger-ui.css",
        swagger_favicon_url=f"{_FILES}/favicon.png",
    )
    content = bytes(page.body)
    headers = {"Content-Security-Policy": _policy(content), "Referrer-Policy": "same-origin"}

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(content, headers=headers)


def _policy(page: bytes) -> str:
    """Return the page's Content-Security-Policy (W3C, level 3); its inline scripts are named by their digests."""
    digests = (base64.b64encode(hashlib.sha256(script).digest()).decode() for script in _SCRIPT.findall(page))
    scripts = " ".join(f"'sha256-{digest}'" for digest in digests)
    rules = (
        "default-src 'none'",
        f"script-src 'self' {scripts}",
        "style-src 'self'",
        "img-src 'self' data:",  # Swagger UI's icons
        "media-src blob:",  # audio that was tried
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    return "; ".join(rules)
