"""The class of every command group: its help shows the whole first sentence of each command, wrapped and never cut off."""

import click


class Group(click.Group):
    """A group whose list of commands is readable at 80 columns."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each command with its whole first sentence; click cuts it to fit one line."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, found.get_short_help_str(limit=1_000)) for name, found in commands if found is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
