"""Which instance id a worker has, and how soon one is started again."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlaas.serving import own_instance_id
from mlaas.up import pause_before_restart

CLAIM = """
import sys
from pathlib import Path
from mlaas.serving import own_instance_id

print(own_instance_id(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


@contextmanager
def another_worker(folder: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Its id, and the process that has it."""
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        yield process.stdout.readline().strip(), process
        process.kill()


def test_workers_on_a_machine_have_ids_of_their_own_and_a_killed_ones_is_had_again(tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    with another_worker(folder) as (first, process), another_worker(folder) as (second, _):
        assert (first[-2:], second[-2:]) == ("-1", "-2")
        assert first[:-2] == second[:-2]
        process.kill()
        process.wait()
        with another_worker(folder) as (again, _):
            assert again == first


def test_the_process_itself_keeps_what_it_has(tmp_path: Path) -> None:
    first, second = own_instance_id(tmp_path), own_instance_id(tmp_path)
    assert first != second


def test_without_a_folder_for_locks_there_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "file"
    file.touch()
    assert own_instance_id(file) == ""
    assert "partitions pause" in caplog.text


def test_a_sound_child_is_started_again_at_once_and_a_broken_one_ever_later() -> None:
    assert pause_before_restart(30.0, lived_s=31) == 0
    pauses = [0.0]
    for _ in range(9):
        pauses.append(pause_before_restart(pauses[-1], lived_s=1))
    assert pauses == [0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]
