# To pin the image by digest: --build-arg PYTHON_IMAGE=python@sha256:...
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm
FROM ${PYTHON_IMAGE} AS packages
# --build-arg BROKER=pubsub adds the client of Google Pub/Sub.
ARG BROKER=kafka
COPY requirements/gateway.txt requirements/pubsub.txt ./
RUN if [ "$BROKER" != pubsub ]; then : > pubsub.txt; fi \
    && pip install --no-cache-dir --only-binary=:all: --require-hashes --prefix=/packages -r gateway.txt -r pubsub.txt

FROM ${PYTHON_IMAGE}
COPY --from=packages /packages /usr/local
WORKDIR /app
COPY configs configs
COPY messaging messaging
COPY gateway gateway
COPY mlaas mlaas
# mlaas validates the settings of all parts.
COPY model/__init__.py model/
COPY worker/__init__.py worker/

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    MLAAS_GATEWAY__HOST=0.0.0.0 MLAAS_LOG__FORMAT=json \
    MLAAS_JOBS__STORE=sqlite:////var/lib/mlaas/jobs.sqlite3
# A volume mounted here inherits the owner of this folder.
RUN install -d -o 10001 -g 10001 /var/lib/mlaas
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health/live', timeout=4)"]
ENTRYPOINT ["python", "-m", "mlaas"]
CMD ["gateway"]
