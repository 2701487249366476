"""Build of the ROS 2 package hiwm_data (ament_python)."""

from setuptools import find_packages, setup

setup(
    name="hiwm_data",
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={"": ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/hiwm_data"]),
        ("share/hiwm_data", ["package.xml"]),
    ],
    zip_safe=False,
    description="Episodes: recorder, replay, bags to and from LeRobot datasets.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "recorder = hiwm_data.recorder_node:main",
            "replay = hiwm_data.replay_node:main",
        ]
    },
)
