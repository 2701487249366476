"""Dynamixel X servos on Protocol 2.0: control table, bus, arm driver, calibration, and an emulator. No ROS but the nodes."""
