"""The arbiter (takeover) and the scripted operator, a stand-in for a person."""
