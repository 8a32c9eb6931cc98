"""The exceptions that data can cause. A caller's own mistake raises ValueError or TypeError instead.

CodecError
├── BitstreamError
│   ├── NotYotoError             the magic bytes are missing
│   ├── UnsupportedVersionError  written by a later version
│   ├── TruncatedError           the data ends too early
│   └── CorruptError             a field, a checksum or a symbol is wrong
├── ModelMismatchError           the file names other weights than those loaded
├── WeightsError                 the weights file is missing, damaged or of another shape
└── ImageError                   unreadable, unsupported mode, too large
    └── TooLargeError            more pixels than the caller allows

LossWarning is given for what of a picture's file is not kept, and is no error.
"""


class CodecError(Exception):
    """Base class; its message is one line that says what was found, what was expected, what to do."""


class BitstreamError(CodecError):
    """The bytes are not a valid `.yoto` file."""


class NotYotoError(BitstreamError):
    """The data does not start with the magic bytes."""


class UnsupportedVersionError(BitstreamError):
    """The file has a version that this decoder does not know."""


class TruncatedError(BitstreamError):
    """The data ends before the file does."""


class CorruptError(BitstreamError):
    """A field has an illegal value, a checksum differs, or the symbols do not decode."""


class ModelMismatchError(CodecError):
    """The file was encoded with other weights."""


class WeightsError(CodecError):
    """The weights file cannot be used."""


class ImageError(CodecError):
    """The image cannot be read, or cannot be coded."""


class TooLargeError(ImageError):
    """The image has more pixels than the caller allows."""


class LossWarning(UserWarning):
    """What of a picture's file a `.yoto` does not keep, beside what the quality leaves out of the pixels."""


# How torch says it in a RuntimeError, and oneDNN in it.
WANT_OF_MEMORY = ("allocate", "could not create a primitive")


def explain(error: Exception) -> str | None:
    """One line for an error that data, files or memory cause; None for a fault of the program."""
    if isinstance(error, CodecError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
    wanting = isinstance(error, RuntimeError) and any(said in str(error) for said in WANT_OF_MEMORY)
    if isinstance(error, MemoryError) or wanting:
        return "not enough memory for this image"
    return None
