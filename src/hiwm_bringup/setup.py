"""Build of the ROS 2 package hiwm_bringup (ament_python)."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def share(folder):
    return (f"share/hiwm_bringup/{folder}", sorted(str(p.relative_to(HERE)) for p in (HERE / folder).iterdir()))


setup(
    name="hiwm_bringup",
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={"": ["py.typed", "templates/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/hiwm_bringup"]),
        ("share/hiwm_bringup", ["package.xml"]),
        share("launch"),
        share("config"),
        share("layouts"),
    ],
    zip_safe=False,
    description="Launch files, parameters, layouts and the hiwm command line; no logic.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "hiwm = hiwm_bringup.cli:main",
        ]
    },
)
