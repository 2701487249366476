#!/usr/bin/env bash
# A layer of an image: tools/setup.sh with the image's ROS sourced, where it has one. Arguments go to tools/setup.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -f /opt/ros/jazzy/setup.bash ]; then
  set +u
  # shellcheck disable=SC1091
  . /opt/ros/jazzy/setup.bash
  set -u
fi
# Byte code and pip's cache would only make the layer larger.
export PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
exec tools/setup.sh "$@"
