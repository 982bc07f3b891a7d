# syntax=docker/dockerfile:1
# The node and its pipelines in one image. Runs as any non-root user on a read-only root file system: it writes to
# /var/lib/ainode (a volume) and /tmp (a tmpfs) alone.

FROM python:3.11-slim AS build
# Another index for torch alone, for instance PyTorch's CPU index; empty takes the default build, which has CUDA.
ARG TORCH_INDEX=""
RUN python -m venv /opt/ainode
ENV PATH=/opt/ainode/bin:$PATH
WORKDIR /src
# torch is most of the image and changes least: a layer of its own.
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install -c constraints.txt '.[postgres]'

FROM python:3.11-slim
LABEL org.opencontainers.image.title="ainode" \
      org.opencontainers.image.description="A headless AI node for hospital imaging" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 ainode \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/ainode --shell /usr/sbin/nologin ainode \
    && install -d -o ainode -g ainode -m 0700 /var/lib/ainode
COPY --from=build /opt/ainode /opt/ainode
ENV PATH=/opt/ainode/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    AINODE_NODE__DATA_DIR=/var/lib/ainode \
    AINODE_API__HOST=0.0.0.0
WORKDIR /var/lib/ainode
USER 10001:10001
VOLUME /var/lib/ainode
EXPOSE 11112 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["ainode"]
CMD ["serve"]
