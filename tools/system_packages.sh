#!/usr/bin/env bash
# Debian packages that the project needs; the one list for people, CI and images (Debian 12+, Ubuntu 22.04+).
#   tools/system_packages.sh list [robot]             print them
#   sudo tools/system_packages.sh install [robot]     install those that are missing
# 'robot' leaves out what only rendering needs.
set -euo pipefail

build=(build-essential cmake python3-venv python3-dev)
drivers=(libusb-1.0-0)
rendering=(libegl1 libegl-mesa0 libgl1-mesa-dri)

usage() { sed -n '2,5s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; }

packages=("${build[@]}" "${drivers[@]}")
case "${2:-all}" in
  all) packages+=("${rendering[@]}") ;;
  robot) ;;
  *) usage ;;
esac

case "${1:-}" in
  list) echo "${packages[@]}" ;;
  install)
    missing=()
    for package in "${packages[@]}"; do
      dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
      apt-get update -qq
      DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}"
      rm -rf /var/lib/apt/lists/*
    fi
    ;;
  *) usage ;;
esac
