"""How a handler gets to know who asks."""

from typing import Annotated

from fastapi import Depends, Request

from chassis.identity.caller import Caller

STATE = "caller"


async def read_caller(request: Request) -> Caller:
    """Return who asks."""
    caller: Caller = request.scope[STATE]  # put there by gateway.accounts.guard
    return caller


CallerIs = Annotated[Caller, Depends(read_caller)]
