# The robot's computer: camera and arm drivers, arbiter, recorder, bringup. Neither torch nor mujoco.
#   docker build -f docker/robot.Dockerfile -t hiwm-robot .
FROM ros:jazzy-ros-base

ARG UID=1000
ENV HIWM_REQUIREMENTS="robot drivers" \
    HIWM_VENV=/opt/hiwm/.venv \
    PYTHONUNBUFFERED=1
WORKDIR /opt/hiwm

COPY tools/system_packages.sh tools/
RUN tools/system_packages.sh install robot

COPY docker/make_user.sh docker/
RUN docker/make_user.sh hiwm "$UID" /opt/hiwm
USER $UID

# The environment changes seldom, the workspace with every commit: a layer for each.
COPY --chown=$UID requirements requirements
COPY --chown=$UID tools tools
COPY --chown=$UID docker/setup.sh docker/entrypoint.sh docker/
RUN docker/setup.sh requirements

COPY --chown=$UID hiwm pyproject.toml ./
COPY --chown=$UID src src
RUN docker/setup.sh

ENTRYPOINT ["docker/entrypoint.sh"]
CMD ["./hiwm", "--help"]
