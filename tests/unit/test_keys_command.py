"""mlaas keys new."""

from pathlib import Path

from click.testing import CliRunner, Result

from gateway.api_keys import Rate, parse
from mlaas.cli import command


def new(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["keys", "new", *arguments])


def test_the_line_is_for_the_key_that_is_printed_alone_on_standard_output() -> None:
    made = new("phone")
    key = made.stdout.strip()
    assert made.stdout == f"{key}\n"
    assert key.startswith("mlaas_") and len(key) >= 6 + 43
    (line,) = [line for line in made.stderr.splitlines() if line.startswith("phone ")]
    assert parse(line).name_of(key.encode()) == "phone"
    assert key not in made.stderr


def test_no_two_keys_are_the_same() -> None:
    assert len({new("phone").stdout for _ in range(20)}) == 20


def test_lines_are_added_to_a_file_whether_it_ends_with_a_line_end_or_not(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    keys = [new("phone", "--rate", "2.5", "--burst", "9", "--file", str(file)).stdout.strip()]
    file.write_text(file.read_text() + "# end")
    keys.append(new("phone", "--file", str(file)).stdout.strip())
    keys.append(new("shop", "--file", str(file)).stdout.strip())
    keyring = parse(file.read_text())
    assert [keyring.name_of(key.encode()) for key in keys] == ["phone", "phone", "shop"]
    assert keyring.rates == {"phone": Rate(2.5, 9)}


def test_the_key_that_replaces_another_keeps_the_rate(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    new("phone", "--rate", "2.5", "--burst", "9", "--file", str(file))
    new("phone", "--file", str(file))
    _, replacement = file.read_text().splitlines(keepends=True)
    assert parse(replacement).rates == {"phone": Rate(2.5, 9)}


def test_what_cannot_be_is_said_and_the_file_stays_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    new("phone", "--rate", "2", "--file", str(file))
    before = file.read_text()
    for arguments, says in {
        ("a/b",): "a name is",
        ("phone", "--burst", "3"): "--burst needs --rate",
        ("phone", "--rate", "0"): "range",
        ("phone", "--rate", "3"): "another rate",
    }.items():
        refused = new(*arguments, "--file", str(file))
        assert refused.exit_code != 0
        assert says in refused.stderr
        assert refused.stdout == ""
    assert new("phone", "--file", str(tmp_path / "none" / "keys")).exit_code != 0
    assert file.read_text() == before
