# syntax=docker/dockerfile:1

# Builds the server and nothing else. The Rust version is the workspace's rust-version; Cargo.lock
# decides about every dependency (--locked), so that two builds of one commit compile the same code.
# Tags move: a release names both images by digest (docs/releasing.md).
ARG RUST_IMAGE=rust:1.95-bookworm
ARG BASE_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY . .
# What tiny_cache_build_info tells: --build-arg TINY_CACHE_COMMIT=$(git rev-parse --short=12 HEAD).
ARG TINY_CACHE_COMMIT=
# The caches outlive the build, the image does not hold them; so the binary is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    scripts/build-release \
 && install -D -m 0755 target/release-build/release/tiny-cache /out/tiny-cache

# Distroless with glibc rather than a static musl binary on scratch, for two reasons: the memory
# accounting is calibrated to glibc's allocator, and musl's takes one lock for all threads, which is
# where a cache server spends its time. There is no shell and no package manager in it either way.
FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="tiny-cache" \
      org.opencontainers.image.description="A cache server: gRPC, HTTP, one TOML file" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /out/tiny-cache /usr/local/bin/tiny-cache
# Listens on all addresses, since the container's network is the boundary here. A file rather than
# CACHE_HOST, because variables win over files: mount your own over this one and it is obeyed, the
# addresses included, while CACHE_* variables still override both.
COPY deploy/container.toml /etc/tiny-cache/tiny-cache.toml
ENV TINY_CACHE_CONFIG=/etc/tiny-cache/tiny-cache.toml
# nonroot, as a number so that runAsNonRoot can be checked.
USER 65532:65532
EXPOSE 50051 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["/usr/local/bin/tiny-cache", "ping", "--timeout", "2s"]
ENTRYPOINT ["/usr/local/bin/tiny-cache"]
CMD ["serve"]
