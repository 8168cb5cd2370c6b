"""completion: the shell's tab key."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script, for the shell to complete commands and options.

    \b
    ~/.bashrc:                   eval "$(mlaas completion bash)"
    ~/.zshrc:                    eval "$(mlaas completion zsh)"
    ~/.config/fish/config.fish:  mlaas completion fish | source
    """
    its = get_completion_class(shell)
    assert its is not None
    click.echo(its(context.find_root().command, {}, "mlaas", "_MLAAS_COMPLETE").source())


COMMANDS = (completion,)
