"""Build of the ROS 2 package hiwm_policy (ament_python)."""

from setuptools import find_packages, setup

setup(
    name="hiwm_policy",
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={"": ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/hiwm_policy"]),
        ("share/hiwm_policy", ["package.xml"]),
    ],
    zip_safe=False,
    description="Policies, training, post-training, evaluation and the policy node.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "policy = hiwm_policy.node:main",
        ]
    },
)
