# Balancer and its echo backend in one small image. The dependencies are a layer of their own, built again only when
# Cargo.toml or Cargo.lock changes.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY crates/http/Cargo.toml crates/http/
COPY crates/importance/Cargo.toml crates/importance/
COPY crates/limiter/Cargo.toml crates/limiter/
COPY crates/pool/Cargo.toml crates/pool/
COPY crates/time/Cargo.toml crates/time/
COPY benches benches
RUN mkdir -p src/bin \
 && echo 'fn main() {}' | tee src/main.rs > src/bin/test_backend.rs \
 && for crate in crates/*; do mkdir "$crate/src"; touch "$crate/src/lib.rs"; done \
 && touch src/lib.rs \
 && cargo build --release --locked --bins \
 && rm -r src crates/*/src
COPY sql sql
COPY crates crates
COPY src src
# Newer than the empty programs above, whatever times the files came with.
RUN find src crates -name '*.rs' -exec touch {} + \
 && cargo build --release --locked --bins

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin balancer \
 && install -d -o balancer -g balancer /var/lib/balancer
# For sslmode=verify-full towards a database whose certificate a public authority signed.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/balancer /src/target/release/test_backend /usr/local/bin/
COPY config.json /etc/balancer/config.json
# The API has a port of its own, inside of the container alone until somebody sets another address and a token.
ENV BALANCER_CONFIG=/etc/balancer/config.json \
    BALANCER_LISTEN=0.0.0.0:8080 \
    BALANCER__ADMIN__LISTEN=127.0.0.1:9000 \
    BALANCER_DATABASE_URL=sqlite:/var/lib/balancer/balancer.db \
    STATE_DIRECTORY=/var/lib/balancer
VOLUME /var/lib/balancer
USER balancer
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 CMD ["balancer", "healthcheck"]
CMD ["balancer", "run"]
