"""How the handlers of a room get what create_api connected for them."""

from typing import Any, TypeVar

from fastapi import Depends, FastAPI, Request

PartsType = TypeVar("PartsType")


def give(app: FastAPI, *parts: object) -> None:
    """Keep the parts of each room with the application, by their class."""
    for part in parts:
        setattr(app.state, type(part).__name__, part)


def given(kind: type[PartsType]) -> Any:
    """Return the dependency that gives a handler the parts of this class."""

    async def read(request: Request) -> PartsType:
        parts: PartsType = getattr(request.app.state, kind.__name__)
        return parts

    return Depends(read)
