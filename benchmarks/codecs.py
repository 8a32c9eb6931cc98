"""What is compared, ours and the peers, all as `encode(picture, setting) → bytes`, `decode(bytes) → picture`."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from unittest.mock import patch

import numpy as np
from PIL import AvifImagePlugin, Image

from codec.api import Codec
from codec.encoder import DEFAULT_EFFORT
from codec.network.threads import choose, get
from codec.picture.image import Uint8Array, open_image

OURS = "yoto"
FAST = "yoto-fast"  # the same at effort 0


class ImageCodec(Protocol):
    """What a benchmark needs to know of a codec."""

    @property
    def name(self) -> str:
        """As on the command line and in the results."""
        ...

    @property
    def settings(self) -> Sequence[float]:
        """Points of the curve, from few bits to many."""
        ...

    @property
    def options(self) -> Mapping[str, object]:
        """What is the same at every setting."""
        ...

    def encode(self, image: Uint8Array, setting: float) -> bytes:
        """The bytes of a complete file."""
        ...

    def decode(self, data: bytes) -> Uint8Array:
        """The picture, from the bytes alone."""
        ...


@dataclass(frozen=True)
class Yoto:
    """Our codec; a setting is the quality in [0, 1]."""

    codec: Codec
    settings: Sequence[float] = ()
    name: str = OURS
    effort: int = DEFAULT_EFFORT

    @property
    def options(self) -> Mapping[str, object]:
        """The effort."""
        return {"effort": self.effort}

    def encode(self, image: Uint8Array, setting: float) -> bytes:
        return self.codec.encode(image, setting, effort=self.effort)

    def decode(self, data: bytes) -> Uint8Array:
        return np.asarray(self.codec.decode(data, max_pixels=sys.maxsize))


@dataclass(frozen=True)
class CommandCodec:
    """Any codec with a command line; a setting is what its command takes for {quality}.

    `encode_command` makes the file {output}, to which it may add a suffix, of the picture {input}, a PNG.
    `decode_command` makes the PNG {output} of that file; without one, the file is of a format that Pillow reads.
    """

    name: str
    encode_command: str
    decode_command: str | None
    settings: Sequence[float]

    @classmethod
    def parse(cls, text: str, settings: Sequence[float]) -> CommandCodec:
        """From NAME:COMMAND or NAME:COMMAND :: COMMAND; ValueError says what is missing."""
        name, colon, commands = text.partition(":")
        encode, _, decode = (part.strip() for part in commands.partition(" :: "))
        if not name or not colon or not all(field in encode for field in ("{input}", "{output}", "{quality}")):
            raise ValueError(f"{text} is not NAME:COMMAND with {{input}}, {{output}} and {{quality}}")
        if decode and not all(field in decode for field in ("{input}", "{output}")):
            raise ValueError(f"the command that decodes, {decode}, needs {{input}} and {{output}}")
        return cls(name, encode, decode or None, settings)

    @property
    def options(self) -> Mapping[str, object]:
        """The commands."""
        return {"encode": self.encode_command, "decode": self.decode_command}

    def encode(self, image: Uint8Array, setting: float) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "input.png")
            Image.fromarray(image).save(source, compress_level=1)
            return self._run(self.encode_command, source, Path(folder, "output"), self.suffix, setting).read_bytes()

    def decode(self, data: bytes) -> Uint8Array:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, f"input{self.suffix}")
            file.write_bytes(data)
            if self.decode_command:
                file = self._run(self.decode_command, file, Path(folder, "output.png"))
            return np.asarray(open_image(file).convert("RGB"))

    @property
    def suffix(self) -> str:
        """What the command adds to {output}."""
        return re.findall(r"\{output\}(\.\w+)?", self.encode_command)[0]

    def _run(self, command: str, source: Path, target: Path, suffix: str = "", setting: float | None = None) -> Path:
        """Run a command without a shell; the file that it made."""
        quality = "" if setting is None else f"{setting:g}"
        words = [word.format(input=source, output=target, quality=quality) for word in shlex.split(command)]
        try:
            done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
        except OSError as error:
            raise CommandError(f"{self.name}: cannot run {words[0]}: {error.strerror}") from error
        made = target.with_name(target.name + suffix)
        if done.returncode or not made.is_file():
            lines = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it said nothing"]
            raise CommandError(f"{self.name}: {words[0]} failed with status {done.returncode}: {lines[0]}")
        return made


class CommandError(Exception):
    """A codec's command failed; the message is one line."""


@contextmanager
def limited_to(threads: int) -> Iterator[None]:
    """Let every codec use so many threads: by its own setting, and where the system can, by the cores it may run on.

    JPEG XL and HEIC offer no setting, so elsewhere than on Linux they are not limited.
    """
    before, cores = get(), allowed_cores()
    with patch.object(AvifImagePlugin, "DEFAULT_MAX_THREADS", threads):
        try:
            choose(threads)
            if cores:
                os.sched_setaffinity(0, cores[:threads])
            yield
        finally:
            choose(before)
            if cores:
                os.sched_setaffinity(0, cores)


def allowed_cores() -> list[int]:
    """The cores that this process may use; empty where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
