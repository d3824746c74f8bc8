# The service as an image: CPU torch, not root, writes nothing but its data folder, healthy when it is ready.
#
#   docker build -t mier .
#   docker run --rm --read-only --cap-drop ALL --security-opt no-new-privileges \
#     -p 127.0.0.1:8080:8080 -p 127.0.0.1:50051:50051 -v mier-data:/var/lib/mier mier
#
# Callers are not asked for a key so: publish the ports to loopback, as above, or to a network that keeps strangers out. Or
# add -e MIER_KEYS=required; `docker exec ... mierctl keys create` makes keys. Every setting is MIER_... in the environment
# or a flag after the image's name (docs/reference/configuration.md). docs/how-to/deploy.md has compose and Kubernetes;
# scripts/docker_steps.py runs these same steps without Docker.

FROM python:3.11-slim AS build
# Where CPU wheels of torch come from; empty: the default index, whose Linux wheels bring CUDA (gigabytes, not used here).
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ENV MIER_HOME=/opt/mier
WORKDIR /src
COPY constraints.txt ./
# Torch alone first: the largest layer, and the one that changes least. Versions are those of constraints.txt.
# hadolint ignore=DL3013
RUN python3 -m venv "$MIER_HOME/venv" && "$MIER_HOME/venv/bin/pip" install --no-cache-dir --constraint constraints.txt \
    ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} torch
COPY . ./
RUN "$MIER_HOME/venv/bin/pip" install --no-cache-dir --constraint constraints.txt ".[service,otel,postgres]" && \
    "$MIER_HOME/venv/bin/pip" uninstall --yes pip && \
    cp -r checkpoints "$MIER_HOME/checkpoints"

FROM python:3.11-slim
# The commit it was built from: docker build --build-arg REVISION="$(git rev-parse HEAD)".
ARG REVISION=
LABEL org.opencontainers.image.title="mier"
LABEL org.opencontainers.image.description="Robots that adapt to tasks nobody trained for: the adaptation service"
LABEL org.opencontainers.image.licenses="Apache-2.0"
LABEL org.opencontainers.image.revision="$REVISION"
ENV MIER_HOME=/opt/mier
ENV MIER_CHECKPOINTS=$MIER_HOME/checkpoints
ENV MIER_DATA=/var/lib/mier
# Inside a container every interface is the container's own; the second line says that this is meant.
ENV MIER_HOST=0.0.0.0
ENV MIER_INSECURE_PUBLIC_BIND=true
ENV OMP_NUM_THREADS=1
ENV PYTHONDONTWRITEBYTECODE=1
ENV PATH=$MIER_HOME/venv/bin:$PATH
COPY --from=build $MIER_HOME $MIER_HOME
# Numbers, so that Kubernetes can see that it is not root.
RUN groupadd --gid 10001 mier && useradd --no-log-init --uid 10001 --gid 10001 --home-dir "$MIER_DATA" --create-home mier
USER 10001:10001
WORKDIR $MIER_DATA
VOLUME $MIER_DATA
EXPOSE 8080 50051
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-m", "mier_service.probe"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["mier-serve"]
