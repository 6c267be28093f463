"""What answers tell of quotas."""

from collections.abc import Iterable

from starlette.types import Message, Send

from chassis.quotas.quota import Used


def telling(used: Iterable[Used], send: Send) -> Send:
    """Return a `send` that adds what `used` holds when the answer begins (draft-ietf-httpapi-ratelimit-headers)."""

    async def tell(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *_fields(used)]}
        await send(message)

    return tell


def _fields(all_used: Iterable[Used]) -> Iterable[tuple[bytes, bytes]]:
    policies, limits = [], []
    for used in all_used:
        quota = used.quota
        unit = "" if quota.unit == "requests" else f';qu="{quota.unit}"'
        window = "" if quota.is_held else f";w={quota.seconds}"
        reset = "" if used.seconds is None else f";t={used.seconds}"
        policies.append(f'"{quota.name}";q={used.of}{unit}{window}')
        limits.append(f'"{quota.name}";r={used.of - used.used}{reset}')
    if policies:
        yield b"ratelimit-policy", ", ".join(policies).encode()
        yield b"ratelimit", ", ".join(limits).encode()
