"""Webhooks that could not be published when they came: the analysis server calls once, so they are kept until then."""

import asyncio
from collections.abc import Collection
from datetime import datetime
from typing import Protocol

import structlog

from chassis.errors import BackEndError, reason_of
from chassis.publishing import Publisher
from contracts.events import Event
from gateway.availability import Availability

log = structlog.get_logger()

SOON_SECONDS = 3.0
"""How long a publish may take before the call is kept instead: whoever calls once does not wait long for an answer.

The event may be published all the same, and then again; its id says that it is the same one.
"""


class KeptWebhooks(Protocol):
    """The `webhooks` collection."""

    async def prepare(self) -> None:
        """Create the indexes."""

    async def keep(self, webhook: Event) -> None:
        """Keep a webhook; the same again changes nothing. Once it returns, the webhook cannot be lost."""

    async def due(self, now: datetime, limit: int) -> list[Event]:
        """Return up to `limit` webhooks that are not held back, the oldest first."""

    async def hold_back_others(self, webhooks: list[Event], until: datetime) -> None:
        """Have all other webhooks of their jobs wait until then."""

    async def remove(self, event_ids: list[str]) -> None:
        """Remove those that were published."""

    async def forget(self, job_ids: Collection[str]) -> None:
        """Remove all of these jobs."""


class Webhooks:
    """Takes the analysis server's calls: each is published at once, or kept until it can be."""

    def __init__(self, kept: KeptWebhooks, publisher: Publisher, availability: Availability) -> None:
        self._kept = kept
        self._publisher = publisher
        self._availability = availability

    async def take(self, webhook: Event, *, interim: bool) -> None:
        """Return once the call is safe.

        An interim one that cannot be published is dropped: kept, it would hold up the job's end, which comes after it.
        """
        try:
            await self._availability.require("RabbitMQ")
            async with asyncio.timeout(SOON_SECONDS):
                await self._publisher.publish(webhook)
        except (BackEndError, TimeoutError) as error:
            if interim:
                log.info("interim webhook dropped", job_id=webhook.subject, reason=reason_of(error))
                return
            await self._kept.keep(webhook)
            log.warning("webhook kept", job_id=webhook.subject, event_id=webhook.id, reason=reason_of(error))
        else:
            self._availability.seen("RabbitMQ")
