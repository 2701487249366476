#!/usr/bin/env bash
# Sources ROS and the workspace, then runs what it is given: hiwm, ros2, bash.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [ -f /opt/ros/jazzy/setup.bash ]; then
  set +u
  # shellcheck disable=SC1091
  . /opt/ros/jazzy/setup.bash
  set -u
fi
# shellcheck source=tools/env.sh
. "$root/tools/env.sh"
exec "$@"
