"""`mlaas dlq` as it is typed, on a terminal and in a pipe, over a real Apache Kafka with a real worker."""

import json
import os
import pty
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from deploy.kafka.local_kafka import LocalKafka
from messaging import connect
from messaging.broker import Message
from tests.e2e.services import PATIENCE_S, ROOT, service, until

SANDAL = (ROOT / "samples" / "sandal.png").read_bytes()


@dataclass(frozen=True)
class Shell:
    """Runs `mlaas dlq` for one broker and its topics."""

    url: str
    requests_topic: str
    environment: dict[str, str]

    def send_what_nobody_can_answer(self, count: int) -> None:
        """Without a word of where the answer is to go; the worker buries it."""
        before = len(self.letters())
        broker = connect(self.url)
        for number in range(count):
            headers = {"correlation_id": f"id-{number}", "deadline_ms": "1"}
            broker.publish(self.requests_topic, Message(SANDAL, headers)).result(PATIENCE_S)
        broker.close()
        until(lambda: len(self.letters()) == before + count, "burying them all")

    def dlq(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """In a pipe."""
        return subprocess.run(
            self._command(arguments),
            cwd=ROOT,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    def dlq_on_a_terminal(self, *arguments: str, typed: str = "") -> tuple[int, str]:
        """Exit status, and what the terminal showed."""
        ours, theirs = pty.openpty()
        with open(theirs, "rb+", buffering=0) as end:
            environment = {**os.environ, **self.environment}
            process = subprocess.Popen(
                self._command(arguments), cwd=ROOT, env=environment, stdin=end, stdout=end, stderr=end
            )
        os.write(ours, typed.encode())
        shown = b""
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:
            pass  # how Linux says that nobody has the terminal's other end any more
        os.close(ours)
        return process.wait(PATIENCE_S), shown.decode()

    def letters(self) -> list[str]:
        listed = self.dlq("ls")
        assert listed.returncode == 0, listed.stderr
        return [json.loads(line)["letter"] for line in listed.stdout.splitlines()]

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "mlaas", "dlq", *arguments]


@pytest.fixture(scope="module")
def shell(apache_kafka: LocalKafka) -> Iterator[Shell]:
    prefix = uuid.uuid4().hex[:8]
    url = f"kafka://{apache_kafka.bootstrap_servers}"
    names = ("requests", "replies", "dead_letters", "cancellations", "jobs", "job_replies")
    topics = {f"MLAAS_TOPICS__{name.upper()}": f"{prefix}.{name}" for name in names}
    theirs = {"MLAAS_BROKER__URL": url, "MLAAS_WORKER__GROUP": f"{prefix}.workers", **topics}
    shell = Shell(url, f"{prefix}.requests", theirs)
    with service("topics", "create", **shell.environment) as creating:
        assert creating.wait() == 0
    with service("worker", **shell.environment) as worker:
        worker.wait_for("assigned partitions")
        yield shell


@pytest.fixture
def letters(shell: Shell) -> Iterator[list[str]]:
    """Three of them, which are gone afterwards."""
    shell.send_what_nobody_can_answer(3)
    yield shell.letters()
    assert shell.dlq("purge", "--yes").returncode == 0


def one_line(said: subprocess.CompletedProcess[str]) -> str:
    assert said.stdout == ""
    (line,) = [line for line in said.stderr.splitlines() if " WARNING " not in line]
    return line


def test_a_list_is_json_in_a_pipe_and_a_table_on_a_terminal(shell: Shell, letters: list[str]) -> None:
    first, *others = map(json.loads, shell.dlq("ls").stdout.splitlines())
    assert len(others) == 2
    assert first["reason"] == "no reply_to"
    assert first["request_id"].startswith("id-")
    assert first["size_bytes"] == len(SANDAL)
    assert first["original"]["topic"] == shell.requests_topic
    assert shell.dlq("ls", "--limit", "1").stdout.count("\n") == 1
    code, shown = shell.dlq_on_a_terminal("ls")
    assert code == 0
    title, *lines = shown.splitlines()
    assert title.startswith("LETTER")
    assert [line.split()[0] for line in lines] == letters
    assert json.loads(shell.dlq_on_a_terminal("ls", "--json", "--limit", "1")[1])["letter"] == letters[-1]


def test_one_is_shown_in_full_and_its_picture_written_into_a_file(
    shell: Shell, letters: list[str], tmp_path: Path
) -> None:
    picture = tmp_path / "picture.png"
    facts = json.loads(shell.dlq("show", letters[0], "--picture", str(picture)).stdout)
    assert picture.read_bytes() == SANDAL
    assert facts["headers"]["kafka_dlt-exception-message"] == facts["reason"] == "no reply_to"
    code, shown = shell.dlq_on_a_terminal("show", letters[0], "--picture", "/dev/stdout")
    assert code == 1
    assert "kafka_dlt-original-topic: " in shown
    assert "is a terminal" in shown
    assert "PNG" not in shown
    unwritable = shell.dlq("show", letters[0], "--picture", str(tmp_path / "nowhere" / "p.png"))
    assert unwritable.returncode == 1
    assert "No such file or directory" in unwritable.stderr


def test_a_replayed_letter_is_answered_and_stays(shell: Shell, letters: list[str]) -> None:
    said = shell.dlq("replay", letters[1], letters[1])
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith(f"{letters[1]}  answered: Sandal (")
    assert "1 letter replayed, 1 answered" in said.stderr
    assert shell.letters() == letters


def test_replaying_all_asks_first_and_deletes_only_when_told(shell: Shell, letters: list[str]) -> None:
    refused = shell.dlq("replay", "--all")
    assert refused.returncode == 2
    assert "Replay 3 letters? Standard input is not a terminal: confirm with --yes" in refused.stderr
    assert shell.dlq_on_a_terminal("replay", "--all", typed="n\n")[0] == 1
    assert shell.dlq("replay", "--all", "--yes").stdout.count("answered: Sandal") == 3
    assert shell.letters() == letters
    code, shown = shell.dlq_on_a_terminal("replay", "--all", "--purge", typed="y\n")
    assert code == 0, shown
    assert "3 letters deleted" in shown
    assert shell.letters() == []
    assert "no letters in" in shell.dlq("ls").stderr


def test_what_lies_behind_a_letter_that_is_refused_again_is_kept(shell: Shell) -> None:
    broker = connect(shell.url)
    one_partition = shell.environment["MLAAS_TOPICS__DEAD_LETTERS"] + "/0"
    for model in ("fashion-mnist", "no-such", "fashion-mnist"):
        broker.publish(one_partition, Message(SANDAL, {"model": model})).result(PATIENCE_S)
    broker.close()
    first, refused, behind = shell.letters()
    said = shell.dlq("replay", "--all", "--purge", "--yes")
    assert said.returncode == 1
    assert f"{refused}  refused, unknown_model: no model 'no-such'; served: " in said.stdout
    assert said.stdout.count("answered: Sandal") == 2
    assert "3 letters replayed, 2 answered\n1 letter deleted\n1 letter answered, but kept" in said.stderr
    assert shell.letters() == [refused, behind]
    assert shell.dlq("show", first).returncode == os.EX_NOINPUT
    assert shell.dlq("purge", "--yes").returncode == 0


def test_purging_asks_first(shell: Shell, letters: list[str]) -> None:
    refused = shell.dlq("purge")
    assert refused.returncode == 2
    assert (
        "Delete 3 letters permanently? Standard input is not a terminal: confirm with --yes" in refused.stderr
    )
    code, shown = shell.dlq_on_a_terminal("purge", typed="n\n")
    assert code == 1
    assert "nothing was changed" in shown
    assert shell.letters() == letters
    newest = letters[-1].partition("/")
    older = [letter for letter in letters[:-1] if letter.partition("/")[0] == newest[0]]
    assert f"{len(older)} letter" in shell.dlq("purge", "--before", letters[-1], "--yes").stderr
    assert shell.letters() == [letter for letter in letters if letter not in older]
    assert shell.dlq_on_a_terminal("purge", typed="y\n")[0] == 0
    assert shell.letters() == []


@pytest.mark.parametrize("arguments", [["show"], ["replay"], ["purge", "--yes", "--before"]])
def test_a_letter_that_is_not_there_is_said_in_one_line(shell: Shell, arguments: list[str]) -> None:
    said = shell.dlq(*arguments, "99/0")
    assert said.returncode == os.EX_NOINPUT
    assert one_line(said) == "mlaas: no record 99/0: partitions are 0 to 11; `mlaas dlq ls` lists them all"


def test_what_is_no_place_is_said_with_an_example(shell: Shell) -> None:
    said = shell.dlq("show", "5")
    assert said.returncode == os.EX_NOINPUT
    assert "'5' is not PARTITION/OFFSET, such as 3/12" in said.stderr


@pytest.mark.parametrize(
    ("broker", "hint"),
    [
        ("kafka://user:secret@127.0.0.1:1", "is the broker running? Use --broker for another; `mlaas up`"),
        ("embedded://", "pass the broker URL that it printed"),
    ],
)
def test_a_broker_that_is_not_there_is_said_in_one_line(shell: Shell, broker: str, hint: str) -> None:
    said = shell.dlq("ls", "--broker", broker)
    assert said.returncode == os.EX_UNAVAILABLE
    assert hint in one_line(said)
    assert "secret" not in said.stderr


def test_a_missing_topic_is_said_with_the_command_that_makes_it(shell: Shell) -> None:
    missing = {**shell.environment, "MLAAS_TOPICS__DEAD_LETTERS": "nowhere"}
    said = replace(shell, environment=missing).dlq("ls")
    assert said.returncode == os.EX_UNAVAILABLE
    assert "nowhere" in (line := one_line(said))
    assert "`mlaas topics create` creates it" in line


def test_the_embedded_broker_is_reached_while_its_process_runs() -> None:
    """Under the URL that `mlaas up` prints; it cannot delete, and says so."""
    with service("up", "--port", "0") as running:
        url = running.wait_for(r"embedded broker at (kafka://\S+)")[1]
        running.wait_for("Ready")
        theirs = Shell(url, "predict.requests", {"MLAAS_BROKER__URL": url})
        theirs.send_what_nobody_can_answer(1)
        (letter,) = theirs.letters()
        assert theirs.dlq("replay", letter).stdout.startswith(f"{letter}  answered: Sandal (")
        said = theirs.dlq("purge", "--yes")
        assert said.returncode == os.EX_UNAVAILABLE
        assert "cannot delete" in one_line(said)
