"""The command families: in which pipelines rows are dropped exactly, and what another one would need."""

import click

from .options import debug_option


@click.command()
@click.option("--explain", metavar="CLASS", help="Read the loop of this pipeline class of diffusers.")
@debug_option
def families(explain: str | None) -> None:
    """List the pipelines that can be pruned exactly, and those that are refused.

    With --explain: what the loop of one pipeline does, and what its row of the table would need.
    """
    from ..generation.families import families_text
    from ..generation.pipelines.explain import explain as explained

    click.echo(families_text() if explain is None else explained(explain).text())
