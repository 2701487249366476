"""Dynamixel X servos on Protocol 2.0: control table, bus, arm driver, calibration, an emulator. ROS: nodes only."""
