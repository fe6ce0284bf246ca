"""The certificate that signs manifests: a self-made one of this computer, or the user's own.

A self-made certificate proves only that a file was not changed after it was signed. It proves
nothing about who signed it: anybody can make one with any name. Readers call it "untrusted".
"""

from __future__ import annotations

import contextlib
import datetime
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rt_swap.config import config_dir
from rt_swap.errors import ConfigError

FOLDER: Final = "signing"
CHAIN_FILE: Final = "certificate.pem"
KEY_FILE: Final = "key.pem"

_YEARS: Final = 10


@dataclass(frozen=True)
class Identity:
    """What signs.

    Attributes:
        chain_pem: Certificates, the signer's first.
        key_pem: Private key, PKCS #8.
        algorithm: C2PA's name of the signature: "es256", "es384", "es512", "ps256" or "ed25519".
        self_made: Whether this program made it.
    """

    chain_pem: bytes
    key_pem: bytes
    algorithm: str
    self_made: bool

    @property
    def note(self) -> str:
        """Who signs, in words for a record."""
        if self.self_made:
            return "signed by a self-made certificate, which proves nothing about identity"
        return "signed by the certificate given"


def own(chain: str | Path, key: str | Path) -> Identity:
    """A certificate of the user's.

    Args:
        chain: PEM, the signer's certificate first, then the ones above it.
        key: PEM of its private key, not encrypted.

    Raises:
        ConfigError: If one cannot be read or used, or they do not belong together.
    """
    read = []
    for option, path in (("--certificate", chain), ("--certificate-key", key)):
        try:
            read.append(Path(path).expanduser().read_bytes())
        except OSError as exc:
            raise ConfigError(f"{option} {path}: cannot be read ({exc.strerror or exc})") from exc
    algorithm = _check(read[0], read[1], f"--certificate {chain}", f"--certificate-key {key}")
    return Identity(read[0], read[1], algorithm, self_made=False)


def self_made() -> tuple[Identity, bool]:
    """The self-made certificate of this user, generated on first use in the configuration folder.

    Returns:
        It, and whether it was made now.

    Raises:
        ConfigError: If it is damaged or the folder cannot be written to.
    """
    folder = config_dir() / FOLDER
    chain, key = folder / CHAIN_FILE, folder / KEY_FILE
    fresh = not (chain.is_file() and key.is_file())
    if fresh:
        _generate(chain, key)
    try:
        chain_pem, key_pem = chain.read_bytes(), key.read_bytes()
        algorithm = _check(chain_pem, key_pem, str(chain), str(key))
    except (OSError, ConfigError) as exc:
        raise ConfigError(
            f"{folder}: the self-made certificate cannot be used ({exc}); remove the folder and it"
            " is made anew"
        ) from exc
    return Identity(chain_pem, key_pem, algorithm, self_made=True), fresh


def _check(chain_pem: bytes, key_pem: bytes, chain_is: str, key_is: str) -> str:
    """The signature algorithm of a pair that belongs together and is valid today.

    Raises:
        ConfigError: If there is no such thing.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    try:
        certificate = x509.load_pem_x509_certificates(chain_pem)[0]
    except ValueError as exc:
        raise ConfigError(f"{chain_is}: is no PEM file of certificates") from exc
    try:
        key: Any = serialization.load_pem_private_key(key_pem, None)
    except (ValueError, TypeError) as exc:
        raise ConfigError(
            f"{key_is}: is no PEM file of a private key without a password; openssl pkcs8 -topk8"
            " -nocrypt -in KEY -out KEY.pem makes one"
        ) from exc
    if _public(key.public_key()) != _public(certificate.public_key()):
        raise ConfigError(f"{key_is}: is not the key of {chain_is}")
    now = datetime.datetime.now(datetime.timezone.utc)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise ConfigError(
            f"{chain_is}: is valid from {certificate.not_valid_before_utc:%Y-%m-%d} to"
            f" {certificate.not_valid_after_utc:%Y-%m-%d} only"
        )
    if isinstance(key, ec.EllipticCurvePrivateKey):
        curves = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
        if key.curve.name in curves:
            return curves[key.curve.name]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    raise ConfigError(
        f"{key_is}: C2PA signs with ECDSA (P-256, P-384, P-521), RSA or Ed25519 keys only"
    )


def _public(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return bytes(
        key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def _generate(chain: Path, key: Path) -> None:
    """Make a root and, signed by it, what signs (C2PA takes no self-signed signer)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.datetime.now(datetime.timezone.utc)
    start, end = now - datetime.timedelta(days=1), now + datetime.timedelta(days=365 * _YEARS)

    def called(what: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, f"rt_swap {what}"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "self-made, proves no identity"),
            ]
        )

    def usage(signs: bool) -> x509.KeyUsage:
        return x509.KeyUsage(
            digital_signature=signs,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=not signs,
            crl_sign=not signs,
            encipher_only=False,
            decipher_only=False,
        )

    root_key = ec.generate_private_key(ec.SECP256R1())
    signer_key = ec.generate_private_key(ec.SECP256R1())
    by_root = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
    root = (
        x509.CertificateBuilder()
        .subject_name(called("root"))
        .issuer_name(called("root"))
        .public_key(root_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(root_key.public_key()), False)
        .sign(root_key, hashes.SHA256())
    )
    signer = (
        x509.CertificateBuilder()
        .subject_name(called("signer"))
        .issuer_name(root.subject)
        .public_key(signer_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(signer_key.public_key()), False)
        .add_extension(by_root, False)
        .sign(root_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = signer_key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        chain.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(key, secret)
        _write(chain, signer.public_bytes(pem) + root.public_bytes(pem))
    except OSError as exc:
        raise ConfigError(
            f"{chain.parent}: the self-made certificate cannot be written"
            f" ({exc.strerror or exc}); make the folder writable, name a certificate of your own"
            " (--certificate, --certificate-key), or pass --no-manifest"
        ) from exc


def _write(path: Path, data: bytes) -> None:
    """Write whole or not at all, readable to the owner alone."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
