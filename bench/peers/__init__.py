"""The job of protocol v0, and no more than that, on other servers."""
