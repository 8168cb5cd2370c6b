"""What a worker says of a model that it serves."""

import msgspec


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model, as it is with the reply to a ping.

    default: it answers where no model is named. runtime is onnx or keras. input says in words what the
    network sees. sha256 is of the file that the runtime has loaded. accuracy: what share of the test pictures
    it is right on.
    """

    name: str
    version: str
    default: bool = False
    runtime: str = ""
    labels: list[str] = []
    input: str = ""
    sha256: str = ""
    accuracy: float | None = None
