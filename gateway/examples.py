"""What the OpenAPI document shows: the sandal of the README, and what the gateway says of errors."""

from typing import Any

from gateway import errors
from gateway.errors import GatewayError

REQUEST_ID = "842df7a8c8ce4d5e530237af93b56d0f"

_PROBABILITIES = {
    "T-shirt/top": 0.000008,
    "Trouser": 0.000009,
    "Pullover": 0.000014,
    "Dress": 0.000020,
    "Coat": 0.000006,
    "Sandal": 0.999691,
    "Shirt": 0.000004,
    "Sneaker": 0.000067,
    "Bag": 0.000132,
    "Ankle boot": 0.000049,
}

SHIPPED: dict[str, Any] = {
    "name": "fashion-mnist",
    "version": "1.4.0",
    "default": True,
    "runtime": "onnx",
    "labels": [*_PROBABILITIES],
    "input": "28 x 28 grey, 0 to 255, bright clothing on black; a PNG, JPEG or WebP picture is made into it",
    "sha256": "3fa04850755ddc9c3dd0d570f169750eed004757bc66f438670725d905c81755",
    "accuracy": 0.9522,
}

PREDICTION: dict[str, Any] = {
    "label": "Sandal",
    "confidence": 0.999691,
    "probabilities": _PROBABILITIES,
    "in_distribution": True,
    "ood_score": 0.404269,
    "mode": "raw28",
    "warnings": [],
    "model": SHIPPED["name"],
    "version": SHIPPED["version"],
    "request_id": REQUEST_ID,
    "sha256": "e8d2fe3c6ec5e7f0c74b0f84b3c6f041f65037ce1320e64a56135cb4e73c4e18",
    "timings": {
        "total_ms": 6.01,
        "broker_ms": 2.081,
        "queue_ms": 2.657,
        "batch_ms": 0.42,
        "decode_ms": 0.375,
        "infer_ms": 0.477,
        "batch_size": 1,
    },
}

DETAILS: dict[type[GatewayError], str] = {
    errors.BrokenForm: "the form is cut off: its last line, --boundary--, is missing",
    errors.InvalidRequest: "there is no parameter 'modle'; there are model, mode, explain, top_k",
    errors.KeyReused: "this Idempotency-Key came with another job before: take a new one",
    errors.NotAPicture: "the bytes are neither PNG, JPEG nor WebP",
    errors.UnacceptedMedia: "text/html is not accepted; send one of image/png, image/jpeg, image/webp",
    errors.UnacceptedCoding: "Content-Encoding 'gzip' is not accepted; send the body as it is",
    errors.TooLarge: "the picture has 27000000 pixels; at most 25000000 are accepted",
    errors.SlowBody: "65536 bytes of the body came within 30 s",
    errors.Unauthorized: "send an API key as X-API-Key, or as Authorization: Bearer",
    errors.RateLimited: "over 10 requests a second of shop",
    errors.UnknownModel: f"no model 'fashion'; served: {SHIPPED['name']} {SHIPPED['version']}",
    errors.UnknownJob: f"no job '{REQUEST_ID}'",
    errors.JobExpired: "the job's results were kept until its expires_at, and are deleted",
    errors.ClientGone: "the client hung up",
    errors.TooManyInFlight: "the wait would be about 4.2 s, too near to 5 s",
    errors.TooManyJobs: "the unfinished jobs have as many pictures, or bytes, as they may have",
    errors.Unavailable: "no worker has answered for 16 s",
    errors.ReplyTimeout: "no answer within 30 s",
    errors.WorkerFailed: errors.WorkerFailed.title,
    GatewayError: GatewayError.title,
}
