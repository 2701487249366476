"""Build of the ROS 2 package hiwm_rig (ament_python)."""

from setuptools import find_packages, setup

setup(
    name="hiwm_rig",
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={"": ["py.typed", "rigs/*.yaml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/hiwm_rig"]),
        ("share/hiwm_rig", ["package.xml"]),
    ],
    zip_safe=False,
    description="The rig contract, its conformance suite, and the drivers of the physical rig.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "emulated_arm = hiwm_rig.dynamixel.emulated_arm_node:main",
            "follower_arm = hiwm_rig.dynamixel.follower_node:main",
            "rig_check = hiwm_rig.conformance.main:main",
            "realsense_camera = hiwm_rig.realsense.node:main",
        ]
    },
)
