"""`wsbundle deploy`: from a checkout to hosts, by ssh(1) alone."""
