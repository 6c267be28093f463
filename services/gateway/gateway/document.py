"""What the public OpenAPI document has besides the gateway's own routes."""

from typing import Any

from fastapi import FastAPI

from contracts import api
from contracts.problems import Problem
from gateway.accounts.document import add_security


def complete_document(app: FastAPI) -> None:
    """Add problem bodies, who may call what, and the notifier's streams: a front end sees one origin and one API."""
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        document = generated()
        schemas = document["components"]["schemas"]
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs"), Problem=problem)
        document["paths"][api.PROGRESS_PATH] = api.PROGRESS_STREAM
        add_security(document)
        # FastAPI adds its own validation error to every operation with parameters; ours are problem bodies.
        for operation in (operation for path in document["paths"].values() for operation in path.values()):
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        return document

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way to extend its document
