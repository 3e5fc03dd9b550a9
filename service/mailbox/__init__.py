"""Where messages are kept for those who are not there: the stores that `service.core.mailbox` asks for."""
