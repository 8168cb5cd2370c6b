"""The errors that are the user's to mend; the command shows them in one line."""

from messaging.broker import BrokerError
from mlaas.settings import SettingsError
from mlaas.up import StartFailed
from model.dataset import DatasetError
from model.manifest import ModelError
from worker.model_process import ModelUnavailable

USERS_ERRORS = (BrokerError, DatasetError, ModelError, ModelUnavailable, SettingsError, StartFailed)
