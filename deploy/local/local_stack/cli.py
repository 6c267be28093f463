"""The commands of `python -m local_stack`; the Makefile calls them."""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from local_stack import interrupts, login, sample
from local_stack.errors import StackError
from local_stack.logs import show_logs
from local_stack.screen import PartsProgress, is_interactive, out, show_error
from local_stack.sending import DEFAULT_TOKEN, Sori, recording_at
from local_stack.settings import ROOT, given_settings, stack_settings
from local_stack.stack import Stack
from local_stack.watching import send_and_watch

app = typer.Typer(
    help="Runs the whole of Sori on one machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Runs one command; exits with 1 and a sentence when it fails, with 128 + n when signal n ended it."""
    interrupts.catch()
    try:
        app(prog_name="local_stack")
    except StackError as error:
        show_error(error)
        sys.exit(1)
    except OSError as error:  # a full disk, a home that is another user's
        show_error(StackError(f"{error.strerror or error}: {error.filename or 'the stack'}"))
        sys.exit(1)
    except interrupts.Interrupted as interrupt:
        sys.exit(interrupt.exit_status)


@app.command()
def up(only_backends: Annotated[bool, typer.Option(help="Start the back ends and the edge alone.")] = False) -> None:
    """Start every part in the background; return when all are ready."""
    stack = _configured(only_backends=only_backends)
    if _bring_up(stack):
        out.print(f"Sori is up: {stack.url}   Next: make send FILE=path, make logs, make down", soft_wrap=True)
        if login.is_required(stack.plan.given):
            out.print(_how_to_log_in(stack), markup=False, soft_wrap=True)
    else:
        out.print(f"Sori was up already: {stack.url}")


@app.command()
def down() -> None:
    """Stop every part; the data stays."""
    _bring_down(Stack(_home()))


@app.command()
def run() -> None:
    """Start every part, load a sample catalogue, compare a sample recording; in a terminal, stay until Ctrl-C."""
    stack = _configured()
    fresh = _bring_up(stack)
    try:
        sori = Sori(stack.url, credential=_own_credential() or _key_for_the_sample(stack))
        token = sample.load(sori, stack.settings["MONGODB_URL"], stack.home)
        succeeded = send_and_watch(sori, sample.recording(stack.home), token)
        if succeeded and is_interactive():
            _show_addresses(stack)
            if fresh:
                out.print("Press Ctrl-C to stop everything.")
                interrupts.wait()
    finally:
        if fresh:
            _bring_down(stack)
    if not succeeded:
        sys.exit(1)


@app.command()
def send(
    file: Annotated[Path, typer.Argument(help="The recording, in any audio format.")],
    token: Annotated[str, typer.Option(help="The token that it is a recording for.")] = DEFAULT_TOKEN,
) -> None:
    """Send a recording through the running stack and show its result."""
    sori = Sori(Stack.running(_home()).url, credential=_own_credential())
    if not send_and_watch(sori, recording_at(file), token):
        sys.exit(1)


@app.command()
def id_token(
    who: Annotated[
        str, typer.Argument(help="learner, editor, operator, or any other name: a learner too.")
    ] = "learner",
) -> None:
    """Print an id token of the stack's own OpenID Connect provider, good for an hour."""
    typer.echo(Stack.running(_home()).id_token(who))


@app.command()
def logs(
    parts: Annotated[list[str] | None, typer.Argument(help="Which parts; all when none is named.")] = None,
    lines: Annotated[int, typer.Option(help="How many of each log's last lines to begin with.")] = 20,
    follow: Annotated[bool, typer.Option(help="Go on showing what is added.")] = sys.stdout.isatty(),
) -> None:
    """Show the parts' logs, and the process manager's."""
    try:
        show_logs(_home() / "logs", parts or [], lines, follow)
    except interrupts.Interrupted:
        return


@app.command()
def status() -> None:
    """Say of each part whether it is ready; fail when one is not."""
    stack = Stack.running(_home())
    states = stack.status()
    table = Table("part", "state", "address", box=None)
    for name, state in states.items():
        table.add_row(name, f"[green]{state}" if state == "ready" else f"[red]{state}", stack.parts[name].address)
    out.print(table)
    if set(states.values()) != {"ready"}:
        sys.exit(1)


@app.command()
def env() -> None:
    """Print the settings of the running stack, secrets included, as lines for a shell's `eval`."""
    for name, value in Stack.running(_home()).settings.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


@app.command()
def clean() -> None:
    """Stop every part and remove all data."""
    home = _home()
    if home != ROOT / ".sori" and home.exists() and not (home / "lock").exists():
        raise StackError(f"SORI_HOME={home} is no stack's data: remove it by hand if that is what you want.")
    for record in [*home.glob("*/run/stack.json"), *home.glob("*/*/run/stack.json")]:  # what tests may have left
        _bring_down(Stack(record.parents[1]))
    if home.exists():
        _bring_down(Stack(home))
        shutil.rmtree(home)
    out.print(f"Removed {home}.")


def _home() -> Path:
    return stack_settings(given_settings(os.environ)).home


def _own_credential() -> str:
    return stack_settings(given_settings(os.environ)).token


def _key_for_the_sample(stack: Stack) -> str:
    return sample.new_key(stack.settings["MONGODB_URL"]) if login.is_required(stack.plan.given) else ""


def _configured(only_backends: bool = False) -> Stack:
    given = given_settings(os.environ)
    settings = stack_settings(given)
    return Stack(
        settings.home,
        port_base=settings.port_base,
        replicas=settings.replicas,
        given=given,
        only_backends=only_backends,
        timeout=settings.up_timeout,
    )


def _bring_up(stack: Stack) -> bool:
    if stack.is_up():
        return stack.up()
    with PartsProgress(list(stack.parts.values())) as progress:
        return stack.up(progress)


def _bring_down(stack: Stack) -> None:
    interrupts.ignore()
    with out.status("Stopping everything; the services finish what they have in hand …"):
        stack.down()
    out.print("Sori is down.")


def _how_to_log_in(stack: Stack) -> str:
    if login.has_own_provider(stack.plan.given):
        return "A login is needed: export SORI_TOKEN=$(make -s id-token)   WHO=editor, WHO=operator: as these"
    return "A login is needed: export SORI_TOKEN=an id token of OIDC_ISSUERS, or a key of sorictl keys create"


def _show_addresses(stack: Stack) -> None:
    url = stack.url
    if login.is_required(stack.plan.given):
        out.print(f"\n{_how_to_log_in(stack)}", markup=False, soft_wrap=True)
        auth = '-H "Authorization: Bearer $SORI_TOKEN" '
    else:
        auth = ""
    out.print(
        f"""
[bold]To try[/bold]
  {url}/docs     every call, to be tried in the browser
  {url}/health   what is up
  curl {auth}-F file=@path/to/recording.wav {url}/tokens/test-token/upload-audio
  curl {auth}-N {url}/tokens/analysis-progress/JOB_ID
  curl {auth}{url}/tokens/analysis-result/JOB_ID
""",
        soft_wrap=True,
    )
