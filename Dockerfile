# The service as an image: CPU torch, not root, healthy when it is ready.
#
#   docker build -t mier .
#   docker run --rm -p 127.0.0.1:8080:8080 -p 127.0.0.1:50051:50051 -v mier-data:/var/lib/mier mier
#
# Callers are not asked for a key so: publish the ports to loopback, as above, or to a network that keeps strangers out. Or
# add -e MIER_KEYS=required; `docker exec ... /opt/mier/venv/bin/mierctl keys create` makes keys. TLS is MIER_TLS_CERT and
# MIER_TLS_KEY, with a --health-cmd that knows of it. scripts/docker_steps.py runs these same steps without Docker.

FROM python:3.11-slim AS build
# Where CPU wheels of torch come from; empty: the default index, whose Linux wheels bring CUDA.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ENV MIER_HOME=/opt/mier
WORKDIR /src
COPY constraints.txt ./
RUN python3 -m venv "$MIER_HOME/venv"
# Torch alone first: the largest layer, and the one that changes least.
RUN "$MIER_HOME/venv/bin/pip" install --no-cache-dir --constraint constraints.txt \
    ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} torch
COPY . ./
RUN "$MIER_HOME/venv/bin/pip" install --no-cache-dir --constraint constraints.txt ".[service,otel,postgres]"
RUN cp -r checkpoints "$MIER_HOME/checkpoints"

FROM python:3.11-slim
ENV MIER_HOME=/opt/mier
ENV MIER_CHECKPOINTS=$MIER_HOME/checkpoints
ENV MIER_DATA=/var/lib/mier
ENV OMP_NUM_THREADS=1
COPY --from=build $MIER_HOME $MIER_HOME
RUN useradd --system --home-dir "$MIER_DATA" --create-home mier
USER mier
WORKDIR $MIER_DATA
VOLUME $MIER_DATA
EXPOSE 8080 50051
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD "$MIER_HOME/venv/bin/python" -c "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/readyz', timeout=4)"
STOPSIGNAL SIGTERM
# Inside a container every interface is the container's own; the explicit flag says that this is meant.
CMD exec "$MIER_HOME/venv/bin/mier-serve" --host 0.0.0.0 --insecure-public-bind
