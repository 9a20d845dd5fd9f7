"""The command line, called as a person or a script calls it."""

from __future__ import annotations

from click.testing import CliRunner, Result

from trilemma_bench.cli import main


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def succeeds(*arguments: object) -> Result:
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refuses(code: int, message: str, *arguments: object) -> list[str]:
    """The command exits with `code`; its last line on stderr, of those returned, holds the message."""
    result = call(*arguments)
    assert result.exit_code == code, result.output
    lines = result.stderr.strip().splitlines()
    assert message in lines[-1]
    return lines
