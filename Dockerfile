# The server as an image, for CPUs; with the build argument NATIVE=1 for CPUs without LibTorch, or with CUDA=1 for GPUs too:
#
#   docker build -t canet:0.1.0 .
#   docker build -t canet:0.1.0 --build-arg NATIVE=1 .
#   docker build -t canet:0.1.0-cuda --build-arg CUDA=1 .
#
# All run as a user that is not root, on a root that may be read-only, and hold models/. /models may be mounted over.

ARG RUST_IMAGE=docker.io/library/rust:1.95-bookworm
ARG BASE_IMAGE=docker.io/library/debian:bookworm-slim

# What cargo needs to know of the crates to build their dependencies. It looks for the benches that a manifest names.
FROM ${RUST_IMAGE} AS manifests
COPY crates /crates
RUN find /crates -type f ! -name Cargo.toml ! -name build.rs ! -path '*/benches/*' -delete

FROM ${RUST_IMAGE} AS build
ARG CUDA=0
ARG NATIVE=0
# pip fetches LibTorch, and Python collects licences.
RUN { command -v python3 && { [ "$NATIVE" = 1 ] || command -v pip3; }; } >/dev/null \
    || { apt-get update -qq && apt-get install -qq -y --no-install-recommends python3-pip; }
WORKDIR /build
ENV CANET_CACHE=/opt/canet

# LibTorch, 550 MB to download, and 2.5 GB more with CUDA: its own layer. The binary looks for it where it was built, so
# it lies at the same place in the image, without headers, the name that only the linker needs, and the symbols that
# only debuggers do. With NATIVE=1 there is none.
COPY scripts scripts
RUN set -eu; \
    mkdir /runtime; \
    if [ "$NATIVE" = 1 ]; then \
        [ "$CUDA" != 1 ] || { echo 'NATIVE=1 is for CPUs: CUDA=1 needs LibTorch' >&2; exit 1; }; \
        echo '--no-default-features' > /features; \
        exit 0; \
    fi; \
    : > /features; \
    if [ "$CUDA" = 1 ]; then flavour=--cuda; else flavour=--cpu; fi; \
    cpu=$(python3 scripts/libtorch.py "$flavour"); \
    mkdir -p "/runtime$cpu"; \
    cp -a "$cpu/lib" "/runtime$cpu/lib"; \
    rm "/runtime$cpu/lib/libtorch.so"; \
    strip --strip-unneeded "/runtime$cpu/lib/libtorch_cpu.so"; \
    if [ "$CUDA" = 1 ]; then mv /opt/canet/libtorch/*-cuda /runtime/opt/canet/libtorch/; fi

# The dependencies, which change less often than the sources: built for crates that do nothing.
COPY Cargo.toml Cargo.lock build.rs ./
COPY proto proto
COPY benches benches
COPY --from=manifests /crates crates
RUN set -eu; \
    for crate in crates/* .; do mkdir -p "$crate/src"; : > "$crate/src/lib.rs"; done; \
    mkdir -p crates/api/src/console crates/api/src/docs; \
    echo 'fn main() {}' > src/main.rs; \
    cargo build --release --locked $(cat /features); \
    rm -r src crates

COPY crates crates
COPY src src
RUN find crates src build.rs -name '*.rs' -exec touch {} + \
    && cargo build --release --locked --bin canet $(cat /features) \
    && install -D -s target/release/canet /runtime/usr/local/bin/canet \
    && PYTHONPATH=scripts python3 -c 'import licences, sys; licences.write_licences(*sys.argv[1:])' \
        /runtime/usr/share/doc/canet --package=canet $(cat /features)

FROM ${BASE_IMAGE}
COPY --from=build /runtime /
COPY deploy/healthcheck.sh /usr/local/bin/healthcheck
COPY LICENSE-APACHE LICENSE-MIT /usr/share/doc/canet/
COPY models /models
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="canet" \
      org.opencontainers.image.description="Serves CANet: a router picks the slice of one recommender that runs" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
ENV CANET_MODEL=/models/ml-100k \
    CANET_LISTEN=0.0.0.0:8080 \
    CANET_GRPC=0.0.0.0:8081 \
    CANET_PROBE_LISTEN=127.0.0.1:8082
USER 65532:65532
EXPOSE 8080 8081
# The server drains, then ends.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s CMD ["/usr/local/bin/healthcheck"]
ENTRYPOINT ["/usr/local/bin/canet"]
CMD ["serve"]
