"""The certificate of the TLS servers, made anew for each run."""

from pathlib import Path

import trustme
from generator import AUTHORITY


def make(directory: Path) -> None:
    """Write the servers' key and certificate, and what to check them with."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / AUTHORITY))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        str(directory / "server.pem")
    )
