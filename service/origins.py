"""What an origin of web pages looks like, as browsers send it. Source: RFC 6454, section 6."""

_PORT = "[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
ORIGIN = rf"^((?!wss?:)[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:({_PORT}))?|file://|null)$"
