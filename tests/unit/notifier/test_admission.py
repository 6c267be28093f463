"""Who may open a stream: whoever may use the gateway's calls of a job."""

from typing import cast

import pytest
from starlette.requests import Request

from chassis.audit import Audit
from chassis.identity.caller import Caller, Kind
from chassis.identity.identity import Identity
from contracts.rights import Right
from notifier.admission import Admission, RefusedError, Tickets


class Login:
    """Knows one machine."""

    is_required = True

    def __init__(self, *scopes: Right) -> None:
        self._machine = Caller(Kind.MACHINE, frozenset(scopes), "key:" + "a" * 32)

    async def caller(self, _: object) -> Caller:
        return self._machine


def admission(*scopes: Right) -> Admission:
    return Admission(cast("Identity", Login(*scopes)), cast("Tickets", None), cast("Audit", None))


REQUEST = Request({"type": "http", "query_string": b"", "headers": []})


@pytest.mark.parametrize("more", [(), (Right.JOBS_ALL,)])
async def test_a_key_for_jobs_opens_streams(more: tuple[Right, ...]) -> None:
    entry = await admission(Right.JOBS_OWN, *more).entry(REQUEST)
    assert entry.caller.owner is not None


@pytest.mark.parametrize("scope", [right for right in Right if right != Right.JOBS_OWN])
async def test_no_other_scope_opens_one_by_itself(scope: Right) -> None:
    with pytest.raises(RefusedError) as refused:
        await admission(scope).entry(REQUEST)
    assert refused.value.kind.code == "not_allowed"
