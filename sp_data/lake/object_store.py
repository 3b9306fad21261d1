"""Object stores: opening one, and turning its failures into our errors.

Address and credentials come from the environment (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...), as in every other program
for S3. A failure is one LakeError that says what to do; botocore's own error is its cause.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import fsspec

from sp_data.errors import LakeError


def open_store(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The filesystem of a URL, and the path in it. Sends the store no request. Raises LakeError."""
    try:
        # Listings are never cached: what another process wrote meanwhile must be seen.
        fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ValueError, ImportError) as error:
        raise LakeError(f"lake {url!r} cannot be opened: {error}") from error
    return fs, str(root)


def is_s3(fs: fsspec.AbstractFileSystem) -> bool:
    return "s3" in protocols(fs)


def protocols(fs: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


@contextlib.contextmanager
def store_errors(fs: fsspec.AbstractFileSystem, path: str) -> Iterator[None]:
    """Turn S3's errors into LakeError. A FileNotFoundError for a missing object passes as it is, and so do errors of
    this machine's own disk."""
    if not is_s3(fs):
        yield
        return
    # Already loaded if the filesystem is S3; other lakes do not need them.
    import aiohttp
    from botocore.exceptions import BotoCoreError, ClientError
    from fsspec.exceptions import FSTimeoutError

    try:
        yield
    except (BotoCoreError, FSTimeoutError, aiohttp.ClientError) as error:
        raise LakeError(_message(type(error).__name__, str(error), path)) from error
    except OSError as error:
        # s3fs raises Python's errors for S3's codes; S3's own answer is the cause.
        answer = error.__cause__
        if not isinstance(answer, ClientError):
            raise
        code, message = _code(answer)
        if isinstance(error, FileNotFoundError) and code != "NoSuchBucket":
            raise
        raise LakeError(_message(code, message, path)) from error
    except ClientError as error:
        raise LakeError(_message(*_code(error), path)) from error


def refused_condition(error: OSError) -> bool:
    """Whether the store refused a conditional put: another process wrote (or removed) the object."""
    answer: Any = error.__cause__
    code = getattr(answer, "response", {}).get("Error", {}).get("Code")
    return code in ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412", "409")


def _code(error: Any) -> tuple[str, str]:
    answer = error.response.get("Error", {})
    return str(answer.get("Code", "unknown")), str(answer.get("Message", error))


def _message(code: str, message: str, path: str) -> str:
    bucket = path.partition("/")[0]
    text = " ".join(message.split())[:200]
    if code == "NoSuchBucket":
        return f"bucket {bucket!r} does not exist; create it first, or choose another --lake"
    if code in ("NoCredentialsError", "PartialCredentialsError"):
        return f"s3://{path} needs credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if code in ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "403", "Forbidden"):
        return (
            f"s3://{path} is refused ({code}: {text}); are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY those of this "
            f"store, and may they list, read, write and delete in {bucket!r}?"
        )
    if code in ("NotImplemented", "501"):
        return f"s3://{path}: the store lacks a feature that is needed ({text}); docs/s3.md lists them"
    if code.endswith(("ConnectionError", "TimeoutError", "ConnectorError", "DisconnectedError", "ClosedError")):
        return f"s3://{path} cannot be reached ({text}); is AWS_ENDPOINT_URL right, and the store running?"
    return f"s3://{path} cannot be used ({code}: {text}); if the trouble was temporary, run the same command again"
