"""What `mlaas --help` shows: the commands by what they are for, and an example of each."""

import click

SECTIONS = {
    "Try it": {
        "up": "mlaas up --port 8123",
        "doctor": "mlaas doctor",
    },
    "Ask": {
        "predict": "mlaas predict samples/sandal.png",
        "watch": "mlaas watch ~/Pictures --all",
        "jobs": "mlaas jobs submit samples",
        "models": "mlaas models",
    },
    "Run it for real": {
        "gateway": "mlaas gateway --broker kafka://localhost:9092",
        "worker": "mlaas worker --broker kafka://localhost:9092 --workers 2",
        "topics": "mlaas topics create --broker kafka://localhost:9092",
        "keys": "mlaas keys new alice --file keys.txt",
        "config": "mlaas config show",
        "completion": 'eval "$(mlaas completion bash)"',
    },
    "Model": {
        "train": "mlaas train --config configs/smoke.yaml",
        "evaluate": "mlaas evaluate --json",
    },
    "Look inside": {
        "bench": "mlaas bench http://127.0.0.1:8000/predict --clients 64 --seconds 10",
        "dlq": "mlaas dlq ls",
        "send": "mlaas send samples/coat.png",
        "receive": "mlaas receive --count 1",
    },
}
_OTHERS = "More"
_WIDTH = 64


class Sections(click.Group):
    """A group whose help has its commands in sections."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        super().add_command(cmd, name)
        example = _examples().get(name or cmd.name or "")
        if example:
            cmd.epilog = f"Example:  {example}"

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        left = dict(self.commands)
        for title, names in [*SECTIONS.items(), (_OTHERS, tuple(left))]:
            rows = [(name, left.pop(name).get_short_help_str(_WIDTH)) for name in names if name in left]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _examples() -> dict[str, str]:
    return {name: example for its in SECTIONS.values() for name, example in its.items()}
