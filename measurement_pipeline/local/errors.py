"""The error that a command ends with when it cannot do what was requested."""

import click


class CommandError(click.ClickException):
    """A command cannot do what was requested; the message names the value and what was expected. Exit status 1."""
