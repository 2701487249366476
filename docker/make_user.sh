#!/usr/bin/env bash
# The user that an image runs as: make_user.sh NAME UID FOLDER. FOLDER is made, and belongs to the user.
# Ubuntu's images have a user 'ubuntu' with the id 1000, which most people have too: it makes room where it is in the way.
set -euo pipefail

name="$1" uid="$2" folder="$3"
taken="$(getent passwd "$uid" | cut -d: -f1 || true)"
if [ "$taken" = ubuntu ]; then
  userdel --remove ubuntu
elif [ -n "$taken" ]; then
  echo "make_user.sh: the id $uid belongs to '$taken'; build with another: --build-arg UID=..." >&2
  exit 1
fi
useradd --create-home --shell /bin/bash --uid "$uid" "$name"
# Serial ports, USB devices, cameras: the groups that udev gives them to. Debian's and Ubuntu's ids are the same for all
# three; compose.yaml adds those of another host.
for group in dialout plugdev video; do
  getent group "$group" >/dev/null || groupadd --system "$group"
  usermod --append --groups "$group" "$name"
done
mkdir -p "$folder"
chown "$name:" "$folder"
