"""The rig contract: rig file, message codecs, time alignment."""
