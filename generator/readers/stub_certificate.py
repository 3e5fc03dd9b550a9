"""A key pair that replaces the real one while nginx reads a site, which it refuses to do without one.

The private key is the number 1, so that its public key is the generator of P-256: everybody has it, and it protects
nothing. The certificate is self-signed, names nobody, and runs out in 2126.
"""

_CERTIFICATE = """
MIIBCDCBrgIBATAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARzdHViMCAXDTI2MTEyMzE1MjQyNloYDzIxMjYxMDMwMTUyNDI2WjAPMQ0wCwYDVQQDDARz
dHViMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7L
tkBoN79R9TAKBggqhkjOPQQDAgNJADBGAiEAnmfMj4hamHeMlxtJps+digIKtkc3aI1uHSOV2Bn8J1oCIQCUnL/YU8KassDJHu7682yAXMQCqgECJoGn
alMJplGCbA==
"""
_PRIVATE_KEY = """
MHcCAQEEIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABoAoGCCqGSM49AwEHoUQDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiY
wpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==
"""


def stub_pair() -> str:
    """Both in one PEM text, which serves as `ssl_certificate` and as `ssl_certificate_key`."""
    return _pem("CERTIFICATE", _CERTIFICATE) + _pem("EC PRIVATE KEY", _PRIVATE_KEY)


def _pem(label: str, body: str) -> str:
    return f"-----BEGIN {label}-----{body}-----END {label}-----\n"
