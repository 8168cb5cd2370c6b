"""docs/brokers.md shows what the suite tests: `python -m tests.brokers.test_brokers_page` writes it."""

from pathlib import Path

from tests.brokers import gaps, test_broker_contract, test_records

PAGE = Path(__file__).parents[2] / "docs" / "brokers.md"
BEGIN, END = "<!-- contract -->\n", "<!-- /contract -->"


def written() -> str:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}{gaps.table([test_broker_contract, test_records])}\n{END}{after}"


def test_the_table_is_what_the_suite_tests() -> None:
    assert PAGE.read_text() == written()


def test_every_gap_is_of_a_test() -> None:
    names = {name for suite in (test_broker_contract, test_records) for name in vars(suite)}
    assert {f"test_{name}" for _, name in gaps.GAPS} <= names
    assert {kind for kind, _ in gaps.GAPS} <= gaps.KINDS.keys()


if __name__ == "__main__":
    PAGE.write_text(written())
