# shellcheck shell=bash
# Sourced by ./hiwm: activates the virtual environment and the workspace overlay.
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${HIWM_VENV:-$root/.venv}"
export PATH="$venv/bin:$PATH" VIRTUAL_ENV="$venv" HIWM_ROOT="$root"
set +u
# shellcheck disable=SC1091
. "$root/install/local_setup.bash"
set -u
if [ -z "${ROS_DISTRO:-}" ]; then
  # ROS from wheels: libraries are in the virtual environment, and it is the underlay.
  site="$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')"
  export AMENT_PREFIX_PATH="${AMENT_PREFIX_PATH:+$AMENT_PREFIX_PATH:}$venv"
  export HIWM_ROS_WHEELS=1 HIWM_SITE="$site"
fi
export MUJOCO_GL="${MUJOCO_GL:-egl}" OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" PYTHONUNBUFFERED=1
