# The patched stack on AMD's GPUs; docker/README.md has the commands. HCC_AMDGPU_TARGET names the GPUs that it is for.
# The first base has all of ROCm with its compilers, the second what it is made of; both have Python 3.12 or get it.
ARG BASE_IMAGE=docker.io/rocm/dev-ubuntu-24.04:7.2.1-complete@sha256:3db551c4e1229aac1857ac44fcb6141bb749f41348eb572452f11279153c13c3
ARG RUNTIME_IMAGE=docker.io/library/ubuntu:24.04@sha256:561618e2c15bf2397621dd04f96926663a3b5616c189cf7e38db7e82f5c538ea

FROM ${BASE_IMAGE} AS wheels
WORKDIR /src
RUN --mount=type=bind,target=/mnt /mnt/docker/need-python /mnt/forks.toml
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates git gcc g++ libc6-dev && rm -rf /var/lib/apt/lists/*
COPY . .
ARG REVISION
ARG LOCK_SHA256
ARG HCC_AMDGPU_TARGET
ARG PIP_INDEX_URL=
ENV PATCHWHEEL_STORE=/opt/patchwheel UV_LINK_MODE=copy PATH=/opt/rocm/bin:${PATH}
RUN --mount=type=secret,id=ca --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=cache,id=patchwheel,target=/opt/patchwheel,sharing=locked \
    --mount=type=cache,id=patchwheel-uv,target=/root/.cache/uv \
    ./docker/make-environment wheels --variant rocm7

FROM wheels AS build
ARG HCC_AMDGPU_TARGET
ARG PIP_INDEX_URL=
RUN --mount=type=secret,id=ca --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=cache,id=patchwheel,target=/opt/patchwheel,sharing=locked \
    --mount=type=cache,id=patchwheel-uv,target=/root/.cache/uv \
    ./docker/make-environment --variant rocm7 \
    && ./docker/rocm-libraries /opt/rocm /image "${HCC_AMDGPU_TARGET}"

FROM ${RUNTIME_IMAGE}
# hadolint ignore=DL3008
RUN --mount=type=bind,target=/mnt /mnt/docker/need-python /mnt/forks.toml \
    && apt-get update && apt-get install -y --no-install-recommends libdrm-amdgpu1 libelf1t64 libnuma1 libatomic1 libgomp1 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/cache/debconf /var/cache/ldconfig /var/log/* \
    && echo 'forks:x:10001:10001::/home/forks:/bin/sh' >> /etc/passwd && echo 'forks:x:10001:' >> /etc/group \
    && mkdir /home/forks && chown 10001:10001 /home/forks
COPY --from=build /image/ /
ARG BASE_IMAGE
ARG REVISION
ARG LOCK_SHA256
ARG HCC_AMDGPU_TARGET
LABEL org.opencontainers.image.title="patchwheel, ROCm" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      patchwheel.lock.sha256="${LOCK_SHA256}" \
      patchwheel.targets="${HCC_AMDGPU_TARGET}"
ENV PATH=/opt/forks/bin:/opt/rocm/bin:${PATH} HOME=/home/forks DEMO_XP=cupy \
    ROCM_HOME=/opt/rocm LD_LIBRARY_PATH=/opt/rocm/lib
USER 10001:10001
WORKDIR /home/forks
HEALTHCHECK --interval=5m --timeout=60s --start-period=60s CMD ["/opt/patchwheel/entrypoint", "check"]
ENTRYPOINT ["/opt/patchwheel/entrypoint"]
CMD ["demo"]
