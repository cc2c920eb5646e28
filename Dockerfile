# An image with the proxy, the adapter and the mock; by default it runs the proxy:
#
#   docker build --tag openai-stream-proxy .
#   docker run --rm --stop-timeout 30 --publish 8080:8080 \
#     --volume "$PWD/config.json:/etc/openai-stream-proxy/config.json:ro" openai-stream-proxy
#
# What stands behind the image's name replaces that, as the arguments of twistd: "openai-stream-proxy --demo", or
# "openai-stream-mock --host 0.0.0.0". The stop timeout is that of shutdownGraceSeconds, and a little more. Nothing
# is written, so that the root file system can be read-only.

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
EXPOSE 8080 28080 28081
STOPSIGNAL SIGTERM
# The port that has to be open; with several rules, one of them.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
  CMD ["python", "-c", "import os, socket; socket.create_connection(('127.0.0.1', int(os.environ.get('HEALTHCHECK_PORT') or 8080)), 3).close()"]
ENTRYPOINT ["twistd", "-n", "--pidfile="]
CMD ["openai-stream-proxy", "--config", "/etc/openai-stream-proxy/config.json"]
