"""What is wrong with the engine, in words; free of any library, so that who needs no engine loads none."""


class EngineError(Exception):
    """The engine refuses us, and will until somebody changes something; the message says where, what, and the fix."""


class EngineUnreachableError(Exception):
    """The engine cannot be reached now; the message says where, and why."""
