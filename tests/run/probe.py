"""An application that answers with what it sees."""

import json
from typing import Any


async def probe(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        seen = {
            "client": scope["client"] and scope["client"][0],
            "scheme": scope["scheme"],
            "headers": [[name.decode(), value.decode()] for name, value in scope["headers"]],
        }
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(seen).encode()})
