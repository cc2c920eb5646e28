# An image with the proxy, the adapter and the mock; by default it runs the proxy:
#
#   docker build --tag openai-stream-proxy .
#   docker run --rm --stop-timeout 30 --publish 8080:8080 \
#     --volume "$PWD/config.json:/etc/openai-stream-proxy/config.json:ro" openai-stream-proxy
#
# What stands behind the image's name replaces that, as the arguments of the command: "--demo", "--upstream URL", or
# "mock --host 0.0.0.0". The stop timeout is drainDelaySeconds, shutdownGraceSeconds, and a little more. Nothing is
# written, so that the root file system can be read-only. An upstream on the host itself is no localhost here: use
# host.docker.internal (with --add-host host.docker.internal:host-gateway on Linux).
#
# Nothing in it depends on the architecture:
#   docker buildx build --platform linux/amd64,linux/arm64 .

FROM python:3.13-slim AS build
WORKDIR /src
COPY . .
# Bytecode with unchecked hashes holds whatever times the files have once they are copied.
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
 && python -m venv --without-pip /opt/venv \
 && pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --only-binary :all: /wheels/*.whl \
 && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib

FROM python:3.13-slim
RUN groupadd --gid 10001 proxy \
 && useradd --uid 10001 --gid proxy --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin proxy
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# It leaves the list of plugins that no later start could write.
RUN twistd --help >/dev/null
USER 10001:10001
EXPOSE 8080 9901 28080 28081
STOPSIGNAL SIGTERM
# /readyz, for a config with "admin": {"listenPort": 9901}; HEALTHCHECK_URL names another address, or any page that has
# to answer.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
  CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open(os.environ.get('HEALTHCHECK_URL') or 'http://127.0.0.1:9901/readyz', timeout=4)"]
ENTRYPOINT ["openai-stream-proxy"]
CMD ["--config", "/etc/openai-stream-proxy/config.json"]
