FROM python:3.11-slim AS packages
COPY requirements/worker.txt .
RUN pip install --no-cache-dir --only-binary=:all: --require-hashes --prefix=/packages -r worker.txt

FROM python:3.11-slim
COPY --from=packages /packages /usr/local
WORKDIR /app
COPY weights weights
COPY configs configs
COPY messaging messaging
COPY model model
COPY worker worker
COPY mlaas mlaas
# mlaas checks the settings of all parts.
COPY gateway/__init__.py gateway/settings.py gateway/
COPY gateway/jobs/__init__.py gateway/jobs/settings.py gateway/jobs/

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    MLAAS_LOG__FORMAT=json MLAAS_WORKER__HEARTBEAT_FILE=/tmp/heartbeat
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
    CMD test -n "$(find "$MLAAS_WORKER__HEARTBEAT_FILE" -mmin -0.5)"
ENTRYPOINT ["python", "-m", "mlaas"]
CMD ["worker"]
