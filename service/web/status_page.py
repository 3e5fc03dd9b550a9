"""The page that shows how the service is: one file, which asks `/stats` each second and nobody else."""

import base64
import hashlib
import re
from pathlib import Path

from service.core.plain_http import Answer, respond

PAGE = Path(__file__).with_name("status.html")


def status_page() -> Answer:
    """The page, with a policy that allows what is in it and no more."""
    html = PAGE.read_text(encoding="utf-8")  # each time: nobody asks often
    policy = "; ".join(
        (
            "default-src 'none'",
            "connect-src 'self'",
            "img-src data:",
            f"style-src {_hash_of('style', html)}",
            f"script-src {_hash_of('script', html)}",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    return respond(
        200,
        "text/html; charset=utf-8",
        html.encode(),
        ("content-security-policy", policy),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-cache"),
    )


def _hash_of(tag: str, html: str) -> str:
    """Source: Content Security Policy Level 3, section 2.3.1, `hash-source`."""
    (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
