"""Build of the ROS 2 package hiwm_sim (ament_python)."""

from setuptools import find_packages, setup

setup(
    name="hiwm_sim",
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={"": ["py.typed"], "hiwm_sim": ["assets/*.xml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/hiwm_sim"]),
        ("share/hiwm_sim", ["package.xml"]),
    ],
    zip_safe=False,
    description="The MuJoCo reference rig: tasks, scripted demonstrators, visual variations.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "sim_rig = hiwm_sim.node:main",
        ]
    },
)
