"""A second stack, for the tests of this folder: one that asks its callers who they are (AUTH=required)."""

from collections.abc import Iterator

import pytest

from local_stack.stack import Stack
from tests.support.analysis_server import AnalysisServer
from tests.support.stacks import logs_shown, running_stack


@pytest.fixture(scope="package")
def login_stack(analysis_server: AnalysisServer, pytestconfig: pytest.Config) -> Iterator[Stack]:
    """Two replicas of every service and the stack's own OpenID Connect provider; gone after this folder's tests."""
    given = {"AUTH": "required", "TARGET_SERVER_URL": analysis_server.url}
    with running_stack(given) as running, logs_shown(pytestconfig, running):
        yield running
