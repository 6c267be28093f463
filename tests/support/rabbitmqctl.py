"""What the broker itself says of its queues, which AMQP does not tell: messages that are in hand are counted too."""

import subprocess

from local_stack.stack import Stack

PROGRAM = "/usr/lib/rabbitmq/bin/rabbitmqctl"  # the one in /usr/sbin switches to the user rabbitmq


def messages(stack: Stack) -> dict[str, int]:
    """How many messages each queue of the stack's broker holds, whether they wait or are in somebody's hand."""
    rows = _list(stack, "list_queues", "name", "messages")
    return {name: int(count) for name, count in rows}


def _list(stack: Stack, *command: str) -> list[list[str]]:
    done = subprocess.run(
        [PROGRAM, "--quiet", "--timeout", "20", *command, "--no-table-headers"],
        env=dict(stack.parts["rabbitmq"].env),
        cwd=stack.home,  # the broker's environment is relative to it
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return [line.split("\t") for line in done.stdout.splitlines()]
