"""What the values of a report are called. Units are in the names."""

PING_PONG_MS = "Kafka and back, one at a time, median ms"
PING_PONG_PER_S = "Kafka and back, 64 under way, messages/s"
FLOOR_MS = "bare uvicorn, Kafka and back, and one inference together, median ms"
DECODE_SMALL_MS = "decoding a 28 x 28 PNG, ms"
DECODE_LARGE_MS = "decoding a 12-megapixel JPEG, ms"
ALONE_PER_S = "decoding and network alone, pictures/s"
BATCH_PER_S = "POST /predict/batch with 256 pictures, pictures/s"
LARGE_MS = "POST /predict with a 12-megapixel JPEG, median ms"
SMALL_ALONE_MS = "small pictures by themselves, p99 ms"
SMALL_BESIDE_MS = "small pictures beside 12-megapixel ones, p99 ms"
UP_READY_S = "`mlaas up` with its embedded broker ready, s"
GATEWAY_READY_S = "gateway ready, s"
WORKER_READY_S = "worker ready, s"
GATEWAY_MB = "gateway resident, MB"
WORKER_MB = "worker's two processes resident, MB"


def inference_ms(pictures: int) -> str:
    return f"network alone on {pictures}, ms"
