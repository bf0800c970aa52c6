# Taximeter on its embedded defaults. A volume on /data keeps journal, history and counters; nothing else is written to,
# but /tmp.
#
#   docker build -t taximeter .
#   docker run --init -p 8000:8000 -v taximeter:/data --read-only --tmpfs /tmp taximeter
#
# The control port stays inside the container until there is an admin token (docs/operations.md, Docker).
#
#   --build-arg EXTRAS="otel parquet pdf s3"   which of pyproject.toml's extras are in it; none without
#   --build-arg PYTHON_IMAGE=…             another base, or the same by its digest: it needs python3 (3.11 or newer) with venv
#   --build-arg PIP_INDEX_URL=…            a mirror
ARG PYTHON_IMAGE=python:3.13-slim
FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
# What runs has no pip of its own: the build's installs into it.
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/taximeter
COPY requirements.lock requirements-build.lock requirements-otel.lock requirements-parquet.lock requirements-pdf.lock requirements-s3.lock ./
ARG EXTRAS=""
ARG PIP_INDEX_URL
# --no-deps: the locks name everything, and nothing is resolved anew. Tokenizer vocabularies come inside these packages:
# nothing is downloaded when a model is first counted. polyfactory and faker make up examples for API documents, which
# Litestar does only where it is told to; they are 28 MB.
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_DEPS=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_COMPILE=1
RUN locks="-r requirements.lock" \
 && for extra in $EXTRAS; do locks="$locks -r requirements-$extra.lock"; done \
 && /opt/build/bin/pip --python /opt/taximeter/bin/python install --require-hashes $locks \
 && /opt/build/bin/pip --python /opt/taximeter/bin/python uninstall -y faker polyfactory \
 && /opt/build/bin/pip install --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md CHANGELOG.md LICENSE ./
COPY config ./config
COPY proxy ./proxy
# Byte code now: the root may be read-only, and each start would compile everything again.
RUN /opt/build/bin/python -m hatchling build -t wheel -d /tmp/dist \
 && /opt/build/bin/pip --python /opt/taximeter/bin/python install --no-index /tmp/dist/*.whl \
 && /opt/taximeter/bin/python -m compileall -q -j 0 /opt/taximeter/lib

FROM ${PYTHON_IMAGE}
RUN groupadd --system --gid 10001 taximeter \
 && useradd --system --uid 10001 --gid taximeter --home-dir /data --create-home taximeter
COPY --from=build /opt/taximeter /opt/taximeter
ENV PATH=/opt/taximeter/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TAXIMETER_DATA_DIR=/data \
    TAXIMETER_LISTEN=0.0.0.0:8000
WORKDIR /data
USER 10001:10001
VOLUME ["/data"]
EXPOSE 8000 8001
# With the data directory in the environment it imports next to nothing: most of what it costs is Python's own start.
HEALTHCHECK --start-period=10s --interval=15s --timeout=10s CMD ["taximeter", "status"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["taximeter"]
CMD ["serve"]
