"""The error that ends a command with one line on stderr."""

import click


class CommandError(click.ClickException):
    """A command cannot continue; the message names the object, the value, the cause and the next step. Exit status 1."""
