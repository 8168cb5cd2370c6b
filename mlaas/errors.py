"""The errors that are the user's to mend; the command shows them in one line."""

import sys

_NAMES = (
    ("messaging.broker", "BrokerError"),
    ("mlaas.settings", "SettingsError"),
    ("mlaas.up", "StartFailed"),
    ("model.dataset", "DatasetError"),
    ("model.learning", "TrainingError"),
    ("model.manifest", "ModelError"),
    ("model.ood_sets", "OodSetsError"),
    ("worker.model_process", "ModelUnavailable"),
)


def users_errors() -> tuple[type[Exception], ...]:
    """Those of the parts that are loaded: one that is not cannot have raised, and need not be there."""
    return tuple(getattr(sys.modules[module], name) for module, name in _NAMES if module in sys.modules)
