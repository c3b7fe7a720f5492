# CPU:  docker build -t yolomish .
# CUDA: docker build -t yolomish:cuda --build-arg BASE=pytorch/pytorch:2.6.0-cuda12.4-cudnn9-runtime --build-arg TORCH_INDEX= .
# Run:  docker run --rm -v "$PWD:/data" yolomish detect photo.jpg --weights demo      (CUDA: with --gpus all)
ARG BASE=python:3.12-slim
FROM ${BASE}
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# g++ builds the CPU kernel of Mish on its first use; libgl1 and libglib2.0-0 are OpenCV's
RUN apt-get update && apt-get install -y --no-install-recommends g++ libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*
# the CUDA image brings its own torch
RUN if [ -n "${TORCH_INDEX}" ]; then pip install torch torchvision --index-url "${TORCH_INDEX}"; fi
COPY pyproject.toml README.md LICENSE /src/
COPY configs /src/configs
COPY yolomish /src/yolomish
RUN pip install "/src[onnxruntime,openvino]"
WORKDIR /data
ENTRYPOINT ["yolomish"]
