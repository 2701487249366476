"""Build of the ROS 2 package hiwm_world_model (ament_python)."""

from setuptools import find_packages, setup

setup(
    name="hiwm_world_model",
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={"": ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/hiwm_world_model"]),
        ("share/hiwm_world_model", ["package.xml"]),
    ],
    zip_safe=False,
    description="Action-conditioned world models, the world session and the virtual-robot node.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "world_rig = hiwm_world_model.node:main",
        ]
    },
)
