"""Every command's help is complete at 80 columns and describes each option in sentences."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from measurement_pipeline.cli import main, output


def commands(command: click.Command = main, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            result = command.get_command(ctx, name)
            assert result is not None
            yield from commands(result, (*path, name))


def command_at(path: tuple[str, ...]) -> click.Command:
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        result = command.get_command(click.Context(command), name)
        assert result is not None
        command = result
    return command


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_help_is_complete_at_80_columns(path: tuple[str, ...]):
    stdout = CliRunner().invoke(main, [*path, "--help"], env={"COLUMNS": "80"}).output
    # After the usage line, which has an ellipsis for a repeatable argument.
    assert "..." not in stdout.partition("\n")[2]
    assert max(map(len, stdout.splitlines())) <= 80


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_a_command_and_its_options_are_described_in_sentences(path: tuple[str, ...]):
    command = command_at(path)
    described = [command.help or "", *(o.help or "" for o in command.params if isinstance(o, click.Option))]
    for text in described:
        first, last = text.strip()[:1], text.strip()[-1:]
        # Two begin with a value that is explained.
        assert first.isupper() or text.startswith("historical buys"), text
        assert last == ".", text


@pytest.mark.parametrize("on_path", [True, False])
def test_a_printed_command_works_with_the_program_on_the_path_and_without(tmp_path: Path, on_path: bool):
    program = tmp_path / "some where" / "measurement-pipeline"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nfrom measurement_pipeline.cli import output\nprint(output.program_name())\n"
    )
    program.chmod(0o755)
    path = f"{program.parent}:/usr/bin:/bin" if on_path else "/usr/bin:/bin"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(Path(output.__file__).parents[2])}

    def shell(command: str) -> str:
        done = subprocess.run(
            ["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    printed = shell(f"'{program}'")
    assert printed == ("measurement-pipeline" if on_path else "'some where/measurement-pipeline'")
    assert shell(printed) == printed
