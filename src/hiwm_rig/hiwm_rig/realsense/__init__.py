"""RealSense cameras by serial number or by recorded file, through one code path; only ``node.py`` knows ROS."""
