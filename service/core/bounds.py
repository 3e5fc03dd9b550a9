"""The bounds that every shell sets to a client."""

# How long a client that is being closed has to take what was written to it. One that does not read never will.
CLOSE_GRACE_S = 3.0

# The pieces one message may come in. Clients that fragment at all send pieces of kilobytes; a piece costs us a
# hundred bytes even when it is empty, so that the bound on a message's length does not bound this.
MAX_FRAGMENTS = 1024

# How much of what a client has sent is kept until the client may go on; beyond this it is read no further.
READ_AHEAD_BYTES = 64 * 1024
READ_AHEAD_FRAMES = 512
# How long what a client had sent before it went is still carried out, at the pace that its limits allow: as long as a
# WebSocket library waits for the answer to its close frame.
LAST_WORDS_S = 10.0
