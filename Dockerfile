# One image with every service of the delivery company and the operator's program; `command` chooses which one runs.

FROM rust:1-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked \
        --package orders --package invoice --package payment --package shipping --package notification \
        --package client --package postrider --bins \
    && mkdir /built \
    && cd target/release \
    && cp orders invoice payment shipping notification client postrider /built/

FROM debian:bookworm-slim
# The certificates are for brokers behind amqps://.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --no-create-home postrider
COPY --from=build /built/ /usr/local/bin/
USER postrider
CMD ["postrider", "--help"]
