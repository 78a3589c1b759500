# The patched stack on NVIDIA's GPUs; docker/README.md has the commands. CUDA comes as wheels, locked like all others;
# of the host only the driver is used, so that the base needs no CUDA. Any Debian or Ubuntu with Python 3.12 is one.
ARG BASE_IMAGE=docker.io/library/python:3.12.14-slim-bookworm@sha256:782412e85d0f0984994c290652577d4018aff08145c85b262bb63dc0c7522254

FROM ${BASE_IMAGE} AS build
WORKDIR /src
RUN --mount=type=bind,target=/mnt /mnt/docker/need-python /mnt/forks.toml
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates git gcc g++ libc6-dev && rm -rf /var/lib/apt/lists/*
COPY . .
ARG REVISION
ARG LOCK_SHA256
ARG PIP_INDEX_URL=
ENV PATCHWHEEL_STORE=/opt/patchwheel UV_LINK_MODE=copy
RUN --mount=type=secret,id=ca --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=cache,id=patchwheel,target=/opt/patchwheel,sharing=locked \
    --mount=type=cache,id=patchwheel-uv,target=/root/.cache/uv \
    ./docker/make-environment --gpu

FROM ${BASE_IMAGE}
RUN --mount=type=bind,target=/mnt /mnt/docker/need-python /mnt/forks.toml \
    && echo 'forks:x:10001:10001::/home/forks:/bin/sh' >> /etc/passwd && echo 'forks:x:10001:' >> /etc/group \
    && mkdir /home/forks && chown 10001:10001 /home/forks
COPY --from=build /image/ /
ARG BASE_IMAGE
ARG REVISION
ARG LOCK_SHA256
LABEL org.opencontainers.image.title="patchwheel, CUDA" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      patchwheel.lock.sha256="${LOCK_SHA256}"
ENV PATH=/opt/forks/bin:${PATH} HOME=/home/forks DEMO_XP=cupy \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /home/forks
HEALTHCHECK --interval=5m --timeout=60s --start-period=60s CMD ["/opt/patchwheel/entrypoint", "check"]
ENTRYPOINT ["/opt/patchwheel/entrypoint"]
CMD ["demo"]
