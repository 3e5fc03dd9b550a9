"""Whether this process has run out of descriptors although its clients do not have them: then it never recovers."""

import contextlib
import os
import resource

# With fewer a request can neither open a file nor ask another service.
FEW = 8


def have_leaked(connections: int) -> bool:
    """Whether hardly any descriptor is free, and clients have less than half of them."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 2 * connections >= limit:
        return False
    with contextlib.ExitStack() as stack:
        try:
            for _ in range(FEW):
                stack.callback(os.close, os.dup(2))
        except OSError:  # EMFILE
            return True
    return False
