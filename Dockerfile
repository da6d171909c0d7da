# Two targets: `docker build --target cpu .` and `docker build --target gpu .`; the CUDA libraries come from wheels,
# so that both stand on the same slim image and the host brings nothing but its driver.

FROM python:3.12-slim AS base
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 NNKIT_CACHE=/var/cache/nnkit
WORKDIR /opt/nnkit
COPY pyproject.toml README.md LICENSE ./
COPY nnkit nnkit
COPY kernels kernels

FROM base AS cpu
RUN pip install .
WORKDIR /work
ENTRYPOINT ["nnkit"]

FROM base AS gpu
RUN pip install '.[cuda12]'
WORKDIR /work
ENTRYPOINT ["nnkit"]
