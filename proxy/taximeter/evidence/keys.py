"""Ed25519 keys: made, read from files or the environment, signing and checking. `cryptography` is imported when needed.

A key's id is the first 32 hex digits of SHA-256 over its 32 public bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from taximeter.config import EvidenceSettings
from taximeter.core.errors import ConfigError
from taximeter.evidence.chain import hash_of
from taximeter.evidence.statements import Signature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_PURPOSE = b"taximeter evidence root 1\n"
"""Signed before the statement: a signature of ours means nothing else."""

_pem_blocks = re.compile(r"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL).findall


class Signer:
    """A private key."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes_raw()
        self.id = key_id(self.public)

    def sign(self, statement: str) -> Signature:
        return Signature(key=self.id, signature=self._private.sign(_PURPOSE + statement.encode()).hex())


def key_id(public: bytes) -> str:
    return sha256(public).hexdigest()[:32]


def is_signed(statement: str, signature: Signature, public: bytes) -> bool:
    """Whether this key has signed this statement."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(public)
        key.verify(hash_of(signature.signature), _PURPOSE + statement.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def generate(path: Path) -> Signer:
    """Make a private key and `write` it."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return write(path, Ed25519PrivateKey.generate())


def write(path: Path, private: Ed25519PrivateKey) -> Signer:
    """Write a private key, readable by its owner only, and its public one beside it (`.pub`).

    Raises ConfigError where a file is there already, or cannot be written.
    """
    from cryptography.hazmat.primitives import serialization as ser

    pem = private.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.NoEncryption())
    public = private.public_key().public_bytes(ser.Encoding.PEM, ser.PublicFormat.SubjectPublicKeyInfo)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(fd)
        path.with_name(f"{path.name}.pub").write_bytes(public)
    except FileExistsError:
        raise ConfigError(f"{path} is there already; a key is never written over. Name another file.") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    return Signer(private)


def signers(settings: EvidenceSettings, environ: Mapping[str, str]) -> list[Signer]:
    """The keys that settings name: the one that signs, then the one it takes over from. Raises ConfigError."""
    key = _signer_from(settings.key_file, settings.key_env, environ, "evidence.key")
    before = _signer_from(settings.previous_key_file, settings.previous_key_env, environ, "evidence.previous_key")
    if key is None and before is not None:
        raise ConfigError("evidence.previous_key_… is set without evidence.key_file or evidence.key_env.")
    return [each for each in (key, before) if each is not None]


def _signer_from(file: str, env: str, environ: Mapping[str, str], where: str) -> Signer | None:
    """The private key that settings name, None where they name none. Raises ConfigError where it cannot be read."""
    if env:
        text = environ.get(env, "")
        if not text:
            raise ConfigError(f"{where}_env: the environment variable {env} is not set.")
        return _signer(text.encode(), f"{where}_env ({env})")
    if not file:
        return None
    try:
        return _signer(Path(file).read_bytes(), f"{where}_file ({file})")
    except OSError as error:
        raise ConfigError(f"{where}_file: {file} cannot be read: {error.strerror}") from error


def _signer(pem: bytes, where: str) -> Signer:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where} holds no private key as `taximeter evidence keygen` writes it (PEM).") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigError(f"{where} holds a key of another kind; it must be Ed25519.")
    return Signer(private)


def public_keys(path: Path) -> list[bytes]:
    """The public keys in a file, one or more in PEM. Raises ConfigError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        found = [load_pem_public_key(block.encode()) for block in _pem_blocks(path.read_text())]
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: no public key can be read from it: {error}") from error
    keys = [key.public_bytes_raw() for key in found if isinstance(key, Ed25519PublicKey)]
    if not keys or len(keys) != len(found):
        raise ConfigError(
            f"{path} holds something else than Ed25519 public keys (PEM); that of a private key is in FILE.pub."
        )
    return keys


def public_pem(public: bytes) -> str:
    """A public key as `public_keys` reads it."""
    from cryptography.hazmat.primitives import serialization as ser
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = Ed25519PublicKey.from_public_bytes(public)
    return key.public_bytes(ser.Encoding.PEM, ser.PublicFormat.SubjectPublicKeyInfo).decode()
