# The workstation: world model, policy, training, simulator, arbiter, console; torch with CUDA from its wheels.
# The driver comes from the host (nvidia-container-toolkit); without a GPU everything runs on the CPU.
#   docker build -f docker/workstation.Dockerfile -t hiwm-workstation .
FROM ros:jazzy-ros-base

ARG UID=1000
ENV HIWM_REQUIREMENTS="core drivers" \
    HIWM_VENV=/opt/hiwm/.venv \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics \
    PYTHONUNBUFFERED=1
WORKDIR /opt/hiwm

COPY tools/system_packages.sh tools/
RUN tools/system_packages.sh install

COPY docker/make_user.sh docker/
RUN docker/make_user.sh hiwm "$UID" /opt/hiwm
USER $UID

COPY --chown=$UID requirements requirements
COPY --chown=$UID tools tools
COPY --chown=$UID docker/setup.sh docker/entrypoint.sh docker/
RUN docker/setup.sh requirements

COPY --chown=$UID hiwm pyproject.toml ./
COPY --chown=$UID src src
RUN docker/setup.sh
COPY --chown=$UID models models

ENTRYPOINT ["docker/entrypoint.sh"]
CMD ["./hiwm", "--help"]
