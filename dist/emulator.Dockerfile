# The local IoT Hub in a container: docker build -f dist/emulator.Dockerfile -t tombolo-emulator .
#
# It listens on loopback, so what shall reach it shares its network: see docs/emulator.md, "Compose".
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package tombolo

FROM debian:bookworm-slim
COPY --from=build /src/target/release/tombolo /usr/local/bin/tombolo
VOLUME /data
ENTRYPOINT ["tombolo", "emulator", "--data", "/data"]
