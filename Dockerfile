# The operator. The two stages keep pip and its caches out of what runs.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE CHANGELOG.md ./
COPY operator ./operator
RUN python -m venv /opt/remit \
 && PIP_CONSTRAINT=constraints.txt /opt/remit/bin/pip install --no-cache-dir . \
 && /opt/remit/bin/python -m compileall -q /opt/remit

FROM python:3.13-slim
# bubblewrap itself comes with the wheel; Debian's is what administrators can patch without a new image of ours.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends bubblewrap tini \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 remit \
 && useradd --uid 10001 --gid 10001 --home-dir /var/lib/remit --shell /usr/sbin/nologin remit \
 && install --directory --owner=remit --group=remit --mode=0700 /var/lib/remit
COPY --from=build /opt/remit /opt/remit
ENV PATH=/opt/remit/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    REMIT_STATE_DIR=/var/lib/remit
USER 10001:10001
WORKDIR /var/lib/remit
EXPOSE 8080
# The first process of a container cannot be killed from inside, and an operator that has lost its lease must be.
ENTRYPOINT ["tini", "--", "remit"]
CMD ["operator", "--metrics-address=0.0.0.0:8080", "--log-format=json"]
