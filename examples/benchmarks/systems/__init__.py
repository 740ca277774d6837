"""Ours and the peers: functions that make the call that is timed."""
