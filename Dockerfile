# One image for the coordinator, the example workers and the operator's commands.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /source
# rusqlite and ring compile a little C.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make \
    && rm -rf /var/lib/apt/lists/*
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --release --locked -p dirigent -p dirigent-examples \
    && cp target/release/dirigent target/release/dirigent-examples /usr/local/bin/

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/dirigent --create-home dirigent
COPY --from=build /usr/local/bin/dirigent /usr/local/bin/dirigent-examples /usr/local/bin/
USER dirigent
WORKDIR /var/lib/dirigent
ENTRYPOINT ["dirigent"]
CMD ["coordinator"]
