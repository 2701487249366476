#!/usr/bin/env bash
# Put lerobot beside the virtual environment, into .lerobot (140 MB): `hiwm test` then checks datasets with it.
# Not into the environment: lerobot pins older versions of torch, av and numpy. Does nothing where it is up to date.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${HIWM_VENV:-$root/.venv}"
target="$root/.lerobot"
stamp="$(cat "$root/tools/lerobot.txt" "$root/tools/lerobot.sh" "$root/requirements/core.txt" | sha256sum | cut -c1-16)"
[ "$(cat "$target/.stamp" 2>/dev/null)" = "$stamp" ] && exit 0
rm -rf "$target" "$target.partial"
echo "[lerobot] installing into $target" >&2
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$target.partial" \
  -r "$root/tools/lerobot.txt"
# torchcodec wants FFmpeg's libraries by their plain names; PyAV's wheel carries them under hashed ones.
site="$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')"
mkdir "$target.partial/ffmpeg"
for library in "$site"/av.libs/lib*.so.*; do
  file="$(basename "$library")"
  ln -s "$library" "$target.partial/ffmpeg/$file"
  plain="$(sed -E 's/-[0-9a-f]{8}\.so\.([0-9]+).*/.so.\1/' <<<"$file")"
  ln -s "$library" "$target.partial/ffmpeg/$plain"
done
echo "$stamp" >"$target.partial/.stamp"
mv "$target.partial" "$target"
