# The operator. What builds it, and what it never imports, stays out of what runs.
ARG PYTHON=python:3.13-slim
# No file is newer than this: the same base image, packages and sources give the same layer. The default is the time
# that files in the wheel have.
ARG SOURCE_DATE_EPOCH=1580601600

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
# Time zones are Debian's.
RUN python -m venv --without-pip /opt/remit \
 && PIP_CONSTRAINT=constraints.txt pip --python /opt/remit/bin/python install --no-cache-dir --no-compile '.[otel,s3]' \
 && python operator/image/slim.py "$(echo /opt/remit/lib/python3*/site-packages)" \
 && rm -r /opt/remit/lib/python3*/site-packages/tzdata/zoneinfo \
 && find /opt/remit -name '*.so*' -type f -exec strip --strip-unneeded {} +

FROM ${PYTHON} AS system
ARG SOURCE_DATE_EPOCH
# bubblewrap comes with the wheel; AppArmor may allow only Debian's. apt and what only apt needs are removed, so what is
# installed changes by a new build. dpkg's list of it stays, for scanners.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends bubblewrap tini \
 && python -B -m pip uninstall --yes --root-user-action=ignore pip \
 && dpkg --purge --force-depends --force-remove-essential --force-remove-protected apt perl-base \
 && dpkg --purge $(dpkg-query --show --showformat='${binary:Package} ' gpgv sqv 'libapt-pkg*' 'libgnutls*' 'libhogweed*' \
      'libidn2*' 'libnettle*' 'libp11-kit*' 'libtasn1*' 'libunistring*') \
 && rm -rf /usr/bin/tini-static /usr/lib/*-linux-gnu/gconv /usr/share/perl5 /var/lib/apt /var/cache/* /var/log/* \
 && cd /usr/local/lib/python3* && rm -rf ensurepip idlelib lib2to3 pydoc_data tkinter turtledemo ../../include \
 && groupadd --gid 10001 remit \
 && useradd --uid 10001 --gid 10001 --home-dir /var/lib/remit --shell /usr/sbin/nologin remit \
 && install --directory --owner=remit --group=remit --mode=0700 /var/lib/remit

FROM system AS installed
COPY --from=build /opt/remit /opt/remit
COPY --from=launcher /launchers /usr/libexec/remit
COPY operator/image/load.py /tmp/
# Bytecode is kept of what the operator loads: nothing can be written where it runs.
RUN PYTHONHASHSEED=0 /opt/remit/bin/python -B /tmp/load.py --compile && rm /tmp/load.py

FROM ${PYTHON} AS clamped
ARG SOURCE_DATE_EPOCH
COPY --from=installed / /image
COPY operator/image/clamp.py ./
RUN python clamp.py /image

# What was removed would stay in a layer below.
FROM scratch
COPY --from=clamped /image /
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
