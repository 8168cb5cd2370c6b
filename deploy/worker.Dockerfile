# To pin the image by digest: --build-arg PYTHON_IMAGE=python@sha256:...
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm
FROM ${PYTHON_IMAGE} AS packages
# --build-arg BROKER=pubsub adds the client of Google Pub/Sub.
ARG BROKER=kafka
COPY requirements/worker.txt requirements/pubsub.txt ./
RUN if [ "$BROKER" != pubsub ]; then : > pubsub.txt; fi \
    && pip install --no-cache-dir --only-binary=:all: --require-hashes --prefix=/packages -r worker.txt -r pubsub.txt

FROM ${PYTHON_IMAGE}
COPY --from=packages /packages /usr/local
WORKDIR /app
COPY weights weights
COPY configs configs
COPY messaging messaging
COPY model model
COPY worker worker
COPY mlaas mlaas
# mlaas validates the settings of all parts.
COPY gateway/__init__.py gateway/

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    MLAAS_LOG__FORMAT=json MLAAS_WORKER__HEARTBEAT_FILE=/tmp/heartbeat
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
    CMD test -n "$(find "$MLAAS_WORKER__HEARTBEAT_FILE" -mmin -0.5)"
ENTRYPOINT ["python", "-m", "mlaas"]
CMD ["worker"]
