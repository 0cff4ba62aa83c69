# The operator. What builds it, and what it never imports, stays out of what runs.
ARG PYTHON=python:3.13-slim

FROM ${PYTHON} AS launcher
WORKDIR /src
COPY constraints.txt ./
RUN PIP_CONSTRAINT=constraints.txt pip install --no-cache-dir --no-compile ziglang
COPY operator/launcher ./operator/launcher
RUN python operator/launcher/build.py --with zig --into /launchers

FROM ${PYTHON} AS build
WORKDIR /src
RUN apt-get update && apt-get install --yes --no-install-recommends binutils
COPY pyproject.toml constraints.txt README.md LICENSE CHANGELOG.md ./
COPY operator ./operator
# Bytecode is kept of what the operator loads: nothing can be written where it runs. Time zones are Debian's.
RUN python -m venv --without-pip /opt/remit \
 && PIP_CONSTRAINT=constraints.txt pip --python /opt/remit/bin/python install --no-cache-dir --no-compile '.[otel,s3]' \
 && python operator/image/slim.py "$(echo /opt/remit/lib/python3*/site-packages)" \
 && rm -r /opt/remit/lib/python3*/site-packages/tzdata/zoneinfo \
 && find /opt/remit -name '*.so*' -type f -exec strip --strip-unneeded {} + \
 && PYTHONDONTWRITEBYTECODE= /opt/remit/bin/python operator/image/load.py

FROM ${PYTHON} AS system
# bubblewrap itself comes with the wheel; Debian's is what administrators can patch without a new image of ours.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends bubblewrap tini \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* \
 && python -B -m pip uninstall --yes --root-user-action=ignore pip \
 && dpkg --purge --force-depends --force-remove-essential perl-base \
 && rm -rf /usr/lib/*-linux-gnu/gconv /usr/share/perl5 \
 && cd /usr/local/lib/python3* && rm -rf ensurepip idlelib pydoc_data tkinter turtledemo ../../include \
 && groupadd --gid 10001 remit \
 && useradd --uid 10001 --gid 10001 --home-dir /var/lib/remit --shell /usr/sbin/nologin remit \
 && install --directory --owner=remit --group=remit --mode=0700 /var/lib/remit

# What was removed would stay in a layer below.
FROM scratch
COPY --from=system / /
COPY --from=build /opt/remit /opt/remit
COPY --from=launcher /launchers /usr/libexec/remit
ENV PATH=/opt/remit/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    REMIT_STATE_DIR=/var/lib/remit
USER 10001:10001
WORKDIR /var/lib/remit
EXPOSE 8080
# The first process of a container cannot be killed from inside, and an operator that has lost its lease must be.
ENTRYPOINT ["tini", "--", "remit"]
CMD ["operator", "--metrics-address=0.0.0.0:8080", "--log-format=json"]
