"""Commands. With flags only, `mimir-ingest` serves, as Mimir does.

Exit codes: 0 done, 1 it failed (a block that does not verify, a log that cannot be read), 2 the command line or the
configuration cannot be used; a command may have further ones. What a user got wrong is told in a sentence on stderr,
never as a traceback.
"""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import structlog
import typer
from typer.exceptions import TyperException

from mimir_ingest import __version__
from mimir_ingest.commands.block import block_commands
from mimir_ingest.commands.flags import FAILED, SERVER_FLAGS, UNUSABLE, read_settings
from mimir_ingest.commands.kernels import warm_kernels
from mimir_ingest.commands.log import log_commands
from mimir_ingest.commands.replay import replay_command
from mimir_ingest.commands.scale import downscale, upscale
from mimir_ingest.config.errors import ConfigError
from mimir_ingest.config.keys import registry
from mimir_ingest.config.parse import CommandLine, parse_flags
from mimir_ingest.config.reference import render_help, render_reference
from mimir_ingest.config.settings import Settings, load
from mimir_ingest.config.targets import listing
from mimir_ingest.errors import IngestError
from mimir_ingest.kernels.warm import end_with
from mimir_ingest.native_memory import limit_arenas
from mimir_ingest.obs import logging as logs

commands = typer.Typer(
    name="mimir-ingest",
    help="Prometheus-compatible, multi-tenant metrics store with Grafana Mimir's HTTP API and Kafka ingest storage.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
commands.add_typer(block_commands, name="block")
commands.add_typer(log_commands, name="log")
commands.command("replay", context_settings=SERVER_FLAGS)(replay_command)
commands.command("downscale", context_settings=SERVER_FLAGS)(downscale)
commands.command("upscale", context_settings=SERVER_FLAGS)(upscale)
_ONLY_SERVER_FLAGS = {**SERVER_FLAGS, "help_option_names": []}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if not arguments or arguments[0].startswith("-"):
            code = serve(arguments)
        elif arguments[0] == "serve":
            code = serve(arguments[1:])
        else:
            code = commands(args=arguments, prog_name="mimir-ingest", standalone_mode=False) or 0
    except (typer.Exit, typer.Abort) as end:
        code = getattr(end, "exit_code", FAILED)
    except ConfigError as err:
        code = _complain(str(err), UNUSABLE)
    except IngestError as err:
        code = _complain(err.message, UNUSABLE if err.blame == "client" else FAILED)
    except TyperException as err:
        code = _complain(f"{err.format_message()} (mimir-ingest -help lists commands and flags)", UNUSABLE)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _complain(message: str, code: int) -> int:
    print(f"mimir-ingest: {message}", file=sys.stderr)
    return code


def serve(argv: Sequence[str]) -> int:
    """Serve until SIGTERM; or print help, version or modules. Raises ConfigError, IngestError."""
    line = parse_flags(argv, registry())
    if line.has("help") or line.has("h") or line.has("help-all"):
        print(render_help(command_list(), everything=line.has("help-all")), end="")
        return 0
    if line.has("version"):
        print(f"mimir-ingest, version {__version__} (python {platform.python_version()})")
        return 0
    if line.has("modules"):
        print("\n".join(listing()))
        print("\nThose with a star are included in all.")
        return 0
    settings, line = load(argv, os.environ)
    logs.configure(form=settings.server.log_format, level=settings.server.log_level)
    _report(settings, line)
    limit_arenas()
    gc.disable()  # why: what is imported stays; looking through it again and again is a tenth of the start
    warm_kernels(show=sys.stderr.isatty())
    from mimir_ingest.app import run  # importing it loads every kernel, so it comes after the progress bar

    gc.freeze()  # why: a full collection would hold up every request for a tenth of a second
    gc.enable()
    run(settings, leave=_leave)
    return 0


def _leave(error: IngestError | None) -> None:
    """End the process, which has closed everything, without waiting for threads that wait for others."""
    code = 0 if error is None else _complain(error.message, UNUSABLE if error.blame == "client" else FAILED)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def _report(settings: Settings, line: CommandLine) -> None:
    """Log one line for every setting that has no effect, and the configuration if asked to."""
    log = structlog.get_logger()
    for notice in settings.notices:
        log.warning("configuration key has no effect here", key=notice.key, instead=notice.instead)
    for flag, reason in line.ignored.items():
        log.warning("flag has no effect here", flag=f"-{flag}", instead=reason)
    if line.has("print.config"):
        log.info("effective configuration", config=settings.effective.yaml("full"))


def command_list() -> list[tuple[str, str]]:
    """Return name and first sentence of every command, for help."""
    listed = [(command.name or command.callback.__name__, command.callback) for command in commands.registered_commands]
    listed += [(group.name, group.typer_instance.info.help) for group in commands.registered_groups]
    return [(str(name), _first_sentence(about)) for name, about in listed]


def _first_sentence(about: str | Callable[..., Any] | None) -> str:
    text = about if isinstance(about, str) else (about.__doc__ or "")
    return text.strip().splitlines()[0] if text.strip() else ""


@commands.command("serve", context_settings=_ONLY_SERVER_FLAGS)
def serve_command(context: typer.Context) -> None:
    """Run the server; takes the flags that -help lists."""
    raise typer.Exit(serve(context.args))


@commands.command("config", context_settings=SERVER_FLAGS)
def config_command(
    context: typer.Context,
    mode: Annotated[
        str, typer.Option("--mode", help="full, diff (what differs from the defaults) or defaults")
    ] = "full",
    reference: Annotated[bool, typer.Option("--reference", help="Print the reference page as Markdown.")] = False,
) -> None:
    """Check the configuration given by flags and file, and print it as YAML, secrets masked.

    Takes the server's flags.
    """
    if reference:
        print(render_reference(), end="")
        return
    if mode not in ("full", "diff", "defaults"):
        raise ConfigError(f'--mode is "{mode}"; it takes full, diff or defaults')
    settings = read_settings(context.args)
    print(settings.effective.yaml(mode), end="")
    for notice in settings.notices:
        print(f"# {notice.key} has no effect here: {notice.instead}", file=sys.stderr)


@commands.command("warm")
def warm_command(
    needed_at_start: Annotated[
        bool, typer.Option(help="Only those without which the program does not start; others wait for their first use.")
    ] = False,
    with_parent: Annotated[bool, typer.Option(help="End when the process that started it ends.")] = False,
) -> None:
    """Compile all kernels ahead of the first start, with a progress bar."""
    if with_parent:
        end_with(os.getppid())
    count = warm_kernels(show=True, everything=not needed_at_start)
    print(f"{count} kernel modules are compiled", file=sys.stderr)


if __name__ == "__main__":
    main()
