"""The errors that are the user's to mend: one line and an exit code each, no traceback."""

import os
import sys

# Codes as in sysexits.h: what runs the command can tell a wrong setting from a broker that is away.
_CODES = {
    ("gateway.jobs.store", "StoreError"): os.EX_CONFIG,
    ("gateway.api_keys", "KeyFileError"): os.EX_CONFIG,
    ("mlaas_client.errors", "MlaasError"): 1,
    ("messaging.broker", "BrokerError"): os.EX_UNAVAILABLE,
    ("mlaas.dlq", "NoSuchLetter"): os.EX_NOINPUT,
    ("mlaas.dlq", "NotAnswered"): os.EX_UNAVAILABLE,
    ("mlaas.settings", "SettingsError"): os.EX_CONFIG,
    ("mlaas.up", "StartFailed"): 1,
    ("model.training.dataset", "DatasetError"): os.EX_NOINPUT,
    ("model.training.learning", "TrainingError"): 1,
    ("model.manifest", "ModelError"): os.EX_DATAERR,
    ("worker.model_process", "ModelUnavailable"): os.EX_DATAERR,
}


def users_errors() -> tuple[type[Exception], ...]:
    """Those of the parts that are loaded: one that is not cannot have raised, and need not be there."""
    return tuple(_loaded())


def exit_code(error: Exception) -> int:
    """Of one of users_errors()."""
    return next(code for kind, code in _loaded().items() if isinstance(error, kind))


def _loaded() -> dict[type[Exception], int]:
    found = {}
    for (module, name), code in _CODES.items():
        if module in sys.modules:
            found[getattr(sys.modules[module], name)] = code
    return found
