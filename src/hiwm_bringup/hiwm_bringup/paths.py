"""Where the project's files are: models, launch files, parameter files."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = "hiwm_bringup"


def project_root() -> Path:
    """The directory that holds ``models/``: ``$HIWM_ROOT``, else the checkout this package lies in, else here."""
    if os.environ.get("HIWM_ROOT"):
        return Path(os.environ["HIWM_ROOT"])
    for parent in Path(__file__).resolve().parents:
        if (parent / "hiwm").is_file() and (parent / "src").is_dir():
            return parent
    return Path.cwd()


def share_dir() -> Path:
    """The directory with ``launch/``, ``config/`` and ``layouts/``: the source tree's, else the installed one."""
    source = Path(__file__).resolve().parents[1]
    if (source / "config").is_dir():
        return source
    from ament_index_python.packages import get_package_share_directory

    return Path(get_package_share_directory(_PACKAGE))


def parameter_file() -> Path:
    """ROS parameters of all nodes."""
    return share_dir() / "config" / "hiwm.yaml"


def dds_profile() -> Path:
    """The Fast DDS participant profile: a shared-memory segment that camera images fit into."""
    return share_dir() / "config" / "fastdds.xml"
