"""Build of the ROS 2 package hiwm_teleop (ament_python)."""

from setuptools import find_packages, setup

setup(
    name="hiwm_teleop",
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={"": ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/hiwm_teleop"]),
        ("share/hiwm_teleop", ["package.xml"]),
    ],
    zip_safe=False,
    description="The arbiter (takeover), the leader arm, and the scripted operator, a stand-in for a person.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "arbiter = hiwm_teleop.arbiter_node:main",
            "leader_arm = hiwm_teleop.leader_node:main",
            "leader_playback = hiwm_teleop.playback_node:main",
            "scripted_operator = hiwm_teleop.operator_node:main",
        ]
    },
)
