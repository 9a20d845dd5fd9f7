"""The command itself: errors as one line, exit codes 0 (done), 1 (failed) and 2 (wrong usage)."""

from __future__ import annotations

import os
import signal
import warnings
from contextlib import redirect_stdout
from typing import Any, NoReturn

import click

from trilemma_bench.errors import TrilemmaError, UsageError, loaded_plugins, place_of

SECTIONS = {
    "Train, sample, measure": ("run", "train", "sample", "evaluate", "sweep", "suite", "rerun", "reproduce"),
    "Read records": ("report", "choose", "compare", "check"),
    "What there is": ("list", "settings", "doctor", "check-model", "reference"),
}


class Main(click.Group):
    """Turns every error into one line on stderr and the right exit code; `--debug`, anywhere, shows the traceback."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        debug = [argument for argument in args if argument == "--debug"]
        try:
            return super().parse_args(ctx, debug[:1] + [argument for argument in args if argument != "--debug"])
        except click.UsageError as error:
            _refuse(ctx, error)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As `SECTIONS` has them; click would have them by name."""
        width = max(map(len, self.commands))
        for title, names in SECTIONS.items():
            helps = [self.commands[name].get_short_help_str(formatter.width - width - 6) for name in names]
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, text in zip(names, helps, strict=True)])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            _refuse(ctx, error)
        except (click.exceptions.Exit, click.ClickException, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            _fail(ctx, "interrupted", 1)
        except UsageError as error:
            _fail(ctx, str(error), 2)
        except TrilemmaError as error:
            _fail(ctx, str(error), 1)
        except OSError as error:
            _fail(ctx, f"{error.filename}: {error.strerror}" if error.filename else f"{error.strerror or error}", 1)
        except Exception as error:
            place, ours = place_of(error)
            theirs = ", ".join(loaded_plugins())
            whose = f"this is a bug{f', ours or of {theirs}' if theirs else ''}; " if ours else ""
            _fail(ctx, f"{type(error).__name__}: {error}, in {place} ({whose}--debug shows more)", 1)


def _refuse(ctx: click.Context, error: click.UsageError) -> NoReturn:
    """In one line what click would say in four."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        raise error
    _fail(ctx, f"{error.format_message()} See `{(error.ctx or ctx).command_path} --help`", 2)


def _fail(ctx: click.Context, message: str, code: int) -> NoReturn:
    if ctx.params.get("debug"):
        import traceback

        traceback.print_exc()
    click.echo(f"error: {' '.join(message.split())}", err=True)
    ctx.exit(code)


def _warn(message: Warning | str, *where: Any, **more: Any) -> None:
    """A warning in one line, without the line of source that Python shows."""
    if speaks():
        click.echo(f"warning: {' '.join(str(message).split())}", err=True)


def speaks() -> bool:
    """Of the processes that torchrun started, the first."""
    return os.environ.get("RANK", "0") == "0"


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
@click.version_option(package_name="trilemma-bench")
def main(debug: bool) -> None:
    """Quality, coverage and speed of generative models, measured alike."""
    context = click.get_current_context()
    if not debug:
        context.with_resource(warnings.catch_warnings())
        warnings.showwarning = _warn
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not speaks():
        context.with_resource(redirect_stdout(context.with_resource(open(os.devnull, "w"))))  # noqa: SIM115
