"""The protocol's answers, as the OpenAPI document has them."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from gateway.examples import SHIPPED


class Error(BaseModel):
    """What is wrong, and what would be accepted."""

    error: str


class Server(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "mlaas",
                "version": "0.1.0",
                "extensions": ["binary_tensor_data", "classification"],
            }
        }
    )

    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    live: bool
    error: str | None = None


class Ready(BaseModel):
    ready: bool
    error: str | None = None


class ModelReady(BaseModel):
    name: str
    ready: bool


class MetadataTensor(BaseModel):
    """-1 in a shape stands for the number of pictures. An input's parameters say what its values mean."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, str] | None = None


class ModelMetadata(BaseModel):
    """parameters has the labels in the order of the classes, the model file's SHA-256, its accuracy."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[MetadataTensor]
    outputs: list[MetadataTensor]
    parameters: dict[str, Any]


class OutputTensor(BaseModel):
    """data is flat, row by row; with binary data it follows the JSON, and binary_data_size is its length."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class InferenceResponse(BaseModel):
    """id is the request's. model_version is left out where several answered, while one replaces another."""

    model_config = ConfigDict(
        protected_namespaces=(),
        json_schema_extra={
            "example": {
                "model_name": "fashion-mnist",
                "model_version": SHIPPED["version"],
                "id": "42",
                "outputs": [
                    {"name": "label", "shape": [1], "datatype": "BYTES", "data": ["Sandal"]},
                    {"name": "class", "shape": [1], "datatype": "INT64", "data": [5]},
                ],
            }
        },
    )

    model_name: str
    model_version: str | None = None
    id: str | None = None
    outputs: list[OutputTensor]
