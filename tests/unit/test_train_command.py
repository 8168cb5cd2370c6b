from pathlib import Path

from msgspec.structs import replace

from mlaas.commands.train import with_teacher
from mlaas.settings import Settings, load


def settings(weights_dir: Path, teacher: str) -> Settings:
    chosen = [
        ("model.weights_dir", str(weights_dir)),
        ("train.teacher.name", teacher),
        ("train.checkpoint_dir", str(weights_dir / "checkpoints")),
    ]
    return load(None, {}, chosen)


def test_a_teacher_that_is_missing_is_trained_first(tmp_path: Path) -> None:
    student = settings(tmp_path, "fashion-mnist-teacher")
    before, own = with_teacher(student)
    assert own is student
    assert before.train.name == "fashion-mnist-teacher"
    assert before.train.teacher.name == ""
    assert before.model == student.model
    assert before.train.checkpoint_dir == student.train.checkpoint_dir
    assert replace(before, train=student.train) == student


def test_one_that_is_there_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "fashion-mnist-teacher" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "model.yaml").touch()
    student = settings(tmp_path, "fashion-mnist-teacher")
    assert with_teacher(student) == [student]


def test_nobody_knows_how_to_train_another(tmp_path: Path) -> None:
    for teacher in ("", "nobody"):
        student = settings(tmp_path, teacher)
        assert with_teacher(student) == [student]
