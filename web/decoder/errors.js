// Names as in codec/errors.py.

/** A file cannot be decoded; `kind` says why in one word, `message` in one line. */
export class CodecError extends Error {
  constructor(kind, message) {
    super(message);
    this.name = this.kind = kind;
  }
}

export const corrupt = (message) => new CodecError("CorruptError", `${message}; the file is damaged`);
