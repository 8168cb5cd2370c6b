"""API keys: the file, how it is read again, and how often a key may ask."""

import hmac
import logging
import os
from pathlib import Path

import pytest

from gateway.api_keys import KeyFile, KeyFileError, Rate, TokenBucket, digest_of, parse

ONE, TWO = digest_of("one"), digest_of("two")


def test_each_key_has_its_name_whatever_surrounds_it_in_the_file() -> None:
    keyring = parse(f"# ours\n\n  phone {ONE}  # since May\nshop\t{TWO.upper()} 2.5 9\n")
    assert (keyring.name_of(b"one"), keyring.name_of(b"two"), keyring.name_of(b"three")) == (
        "phone",
        "shop",
        None,
    )
    assert keyring.rates == {"shop": Rate(2.5, 9)}


def test_the_digest_is_no_key() -> None:
    assert parse(f"phone {ONE}").name_of(ONE.encode()) is None


def test_two_keys_of_one_name_live_at_once_and_share_its_rate() -> None:
    keyring = parse(f"phone {ONE} 3\nphone {TWO}\n")
    assert keyring.name_of(b"one") == keyring.name_of(b"two") == "phone"
    assert keyring.rates == {"phone": Rate(3, 3)}


@pytest.mark.parametrize(("rate", "burst"), [("0.2", 1), ("1", 1), ("2.5", 3)])
def test_without_a_burst_a_second_may_come_at_once(rate: str, burst: int) -> None:
    assert parse(f"phone {ONE} {rate}").rates["phone"].burst == burst


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no key"),
        ("# nothing\n", "no key"),
        ("phone", "line 1 has 1 words"),
        (f"\nphone {ONE} 1 1 1", "line 2 has 5 words"),
        (f"a/b {ONE}", "line 1: a name"),
        (f"{'n' * 65} {ONE}", "line 1: a name"),
        ("phone mlaas_abc", "not a SHA-256"),
        (f"phone {ONE[:-1]}", "not a SHA-256"),
        (f"phone {ONE} many", "must be a number"),
        (f"phone {ONE} 1 1.5", "whole number"),
        (f"phone {ONE} inf", "must be a number"),
        (f"phone {ONE} nan 3", "above 0"),
        (f"phone {ONE} 0", "above 0"),
        (f"phone {ONE} 1 0", "above 0"),
        (f"phone {ONE} -1", "above 0"),
        (f"phone {ONE}\nshop {ONE}", "line 2: this key's digest"),
        (f"phone {ONE} 1\nphone {TWO} 2", "line 2: phone has another rate"),
    ],
)
def test_a_line_that_cannot_be_is_named_and_not_quoted(text: str, says: str) -> None:
    with pytest.raises(KeyFileError, match=says) as raised:
        parse(text)
    assert "mlaas_abc" not in str(raised.value)


def test_a_key_is_compared_with_every_digest_whichever_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[bytes] = []
    compare = hmac.compare_digest

    def noting(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return compare(one, other)

    keyring = parse(f"a {ONE}\nb {TWO}\nc {digest_of('three')}")
    monkeypatch.setattr(hmac, "compare_digest", noting)
    for key in (b"one", b"two", b"none", b"", b"\xff" * 10_000):
        compared.clear()
        keyring.name_of(key)
        assert len(compared) == 3
        assert {len(digest) for digest in compared} == {32}


each_broken = pytest.mark.parametrize(
    "content", [b"", b"phone", b"\xff\xfe", None], ids=["empty", "short", "bytes", "gone"]
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"phone {ONE}")
    return path


def test_a_changed_file_is_read_again_but_looked_at_once_a_second(file: Path) -> None:
    keys = KeyFile(file, 100)
    file.write_text(f"phone {ONE}\nshop {TWO}")
    assert keys.current(100.9).name_of(b"two") is None
    assert keys.current(101).name_of(b"two") == "shop"
    file.write_text(f"shop {TWO}")
    assert keys.current(101.9).name_of(b"one") == "phone"
    assert keys.current(102).name_of(b"one") is None


def test_a_file_that_another_takes_the_place_of_is_read_again_though_as_old_and_as_long(file: Path) -> None:
    keys = KeyFile(file, 0)
    its = file.stat()
    new = file.with_name("new")
    new.write_text(f"phone {TWO}")
    os.utime(new, ns=(its.st_atime_ns, its.st_mtime_ns))
    new.replace(file)
    assert keys.current(1).name_of(b"two") == "phone"


@pytest.mark.parametrize(
    "content", [b"", b"phone", b"\xff\xfe", None], ids=["empty", "short", "bytes", "gone"]
)
def test_a_file_that_breaks_leaves_the_keys_and_says_why_once(
    file: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    keys = KeyFile(file, 0)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with caplog.at_level(logging.ERROR):
        for now in (1, 2, 3):
            assert keys.current(now).name_of(b"one") == "phone"
    (record,) = caplog.records
    assert str(file) in record.getMessage()
    file.write_text(f"shop {TWO}")
    assert keys.current(4).name_of(b"two") == "shop"


@pytest.mark.parametrize(
    "content", [b"", b"phone", b"\xff\xfe", None], ids=["empty", "short", "bytes", "gone"]
)
def test_a_file_that_is_broken_from_the_start_is_an_error_that_names_it(
    file: Path, content: bytes | None
) -> None:
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(KeyFileError, match=f"gateway.api_keys_file {file}"):
        KeyFile(file, 0)


def test_a_bucket_lets_the_burst_pass_and_then_the_rate() -> None:
    bucket = TokenBucket(Rate(2, 3), 10)
    assert [bucket.take(10) for _ in range(4)] == [0, 0, 0, 0.5]
    assert bucket.take(10.25) == 0.25
    assert bucket.take(10.5) == 0
    assert bucket.take(10.5) == 0.5


def test_after_a_long_pause_no_more_than_the_burst_passes() -> None:
    bucket = TokenBucket(Rate(2, 3), 0)
    assert [bucket.take(1_000) == 0 for _ in range(4)] == [True, True, True, False]


def test_over_time_as_many_pass_as_the_rate_says() -> None:
    bucket = TokenBucket(Rate(0.5, 1), 0)
    passed = sum(bucket.take(tenth / 10) == 0 for tenth in range(1_000))
    assert passed == 50


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(Rate(1, 1), 5)
    assert bucket.take(5) == 0
    assert bucket.take(5) == bucket.take(3) == 1
