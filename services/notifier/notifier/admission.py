"""Who may open which stream."""

from dataclasses import dataclass
from typing import Protocol

import structlog
from starlette.requests import Request

from chassis.audit import Audit
from chassis.errors import BackEndError
from chassis.identity.caller import Caller, InvalidCredentialError
from chassis.identity.identity import Identity, Ticket
from contracts import problems
from contracts.job import Job
from contracts.problems import ProblemKind
from contracts.rights import Right

log = structlog.get_logger()


class RefusedError(Exception):
    """The stream is not opened; `kind` is what the caller is told."""

    def __init__(self, kind: ProblemKind) -> None:
        super().__init__(kind.code)
        self.kind = kind


class Tickets(Protocol):
    """The tickets that have opened a stream."""

    async def spend(self, ticket_id: str) -> bool:
        """Note that the ticket opens a stream now; False when it has opened one before."""


@dataclass(frozen=True)
class Entry:
    """How a listener came in: as a caller, or with a ticket for one job."""

    caller: Caller
    ticket: Ticket | None = None

    def sees(self, job: Job) -> bool:
        """Tell whether the job is there for this listener."""
        return self.caller.sees(job.owner) if self.ticket is None else self.ticket.job_id == job.job_id


class Admission:
    """Tells who wants to listen, and whether they may."""

    def __init__(self, identity: Identity, tickets: Tickets, audit: Audit) -> None:
        self._identity = identity
        self._tickets = tickets
        self._audit = audit

    async def entry(self, request: Request) -> Entry:
        """Return how the listener comes in; RefusedError when it may open no stream."""
        try:
            ticket = request.query_params.get("ticket")
            if ticket is not None and self._identity.is_required:
                opened = await self._identity.ticket(ticket)
                return Entry(opened.caller, opened)
            caller = await self._identity.caller(request.scope["headers"])
        except InvalidCredentialError as error:
            raise RefusedError(problems.TOKEN_EXPIRED if error.expired else problems.TOKEN_INVALID) from None
        except BackEndError as error:
            log.warning("stream refused", reason=f"{error.back_end}: {error.reason}")
            raise RefusedError(problems.UNAVAILABLE) from None
        if caller.may(Right.JOBS_OWN):
            return Entry(caller)
        raise RefusedError(problems.NOT_ALLOWED if caller.is_known else problems.LOGIN_REQUIRED)

    async def let_in(self, entry: Entry, job: Job) -> None:
        """Use up the listener's ticket, if it came with one, and note an operator who listens to another's job.

        RefusedError when the ticket was used before, or MongoDB is away.
        """
        caller = entry.caller
        try:
            if entry.ticket is not None:
                if not await self._tickets.spend(entry.ticket.ticket_id):
                    raise RefusedError(problems.TOKEN_EXPIRED)
            elif caller.is_known and caller.owner != job.owner:
                await self._audit.note(caller, "stream", job)
        except BackEndError:
            raise RefusedError(problems.UNAVAILABLE) from None
