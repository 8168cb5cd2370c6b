"""Which trainings must come before one."""

from pathlib import Path

from msgspec.structs import replace

from mlaas.settings import DEFAULTS, Settings, load
from model import manifest


def with_teacher(settings: Settings) -> list[Settings]:
    """This training, after that of its teacher if there is no such model, and configs/ has its settings."""
    own, teacher = settings.train, settings.train.teacher.name
    file = DEFAULTS.with_name(f"{teacher}.yaml")
    missing = teacher and not manifest.path(Path(settings.model.weights_dir), teacher).exists()
    if not (missing and file.exists()):
        return [settings]
    before = load(file, {}).train
    before = replace(
        before, data_dir=own.data_dir, checkpoint_dir=own.checkpoint_dir, reports_dir=own.reports_dir
    )
    return [*with_teacher(replace(settings, train=before)), settings]
