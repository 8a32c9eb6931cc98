// Where things lie, as in codec/grid.py. A box is { top, left, bottom, right }, px.

const clampBox = (a, b) => ({
  top: Math.max(a.top, b.top),
  left: Math.max(a.left, b.left),
  bottom: Math.min(a.bottom, b.bottom),
  right: Math.min(a.right, b.right),
});

export const isEmpty = (box) => box.top >= box.bottom || box.left >= box.right;
export const areaOf = (box) => (isEmpty(box) ? 0 : (box.bottom - box.top) * (box.right - box.left));

export class Grid {
  constructor({ width, height, tile }, marginPx) {
    this.tilePx = tile;
    this.marginPx = marginPx;
    this.picture = { top: 0, left: 0, bottom: height, right: width };
    this.padded = { top: 0, left: 0, bottom: Math.ceil(height / 64) * 64, right: Math.ceil(width / 64) * 64 };
    this.columns = Math.ceil(width / tile);
    this.rows = Math.ceil(height / tile);
  }

  tile(number) {
    const [top, left] = [Math.floor(number / this.columns) * this.tilePx, (number % this.columns) * this.tilePx];
    return clampBox({ top, left, bottom: top + this.tilePx, right: left + this.tilePx }, this.padded);
  }

  /** Numbers of the tiles that share pixels with a box. */
  touching(box) {
    const numbers = [];
    for (let row = Math.floor(box.top / this.tilePx); row < Math.ceil(box.bottom / this.tilePx); row++) {
      for (let column = Math.floor(box.left / this.tilePx); column < Math.ceil(box.right / this.tilePx); column++) {
        numbers.push(row * this.columns + column);
      }
    }
    return numbers;
  }

  /** A box and the context that the synthesis needs around it. */
  withMargin({ top, left, bottom, right }) {
    const m = this.marginPx;
    return clampBox({ top: top - m, left: left - m, bottom: bottom + m, right: right + m }, this.padded);
  }

  common = clampBox;
}

/** The smallest box of whole latents around a box. */
export function onLatents({ top, left, bottom, right }) {
  const [down, up] = [(px) => Math.floor(px / 16) * 16, (px) => Math.ceil(px / 16) * 16];
  return { top: down(top), left: down(left), bottom: up(bottom), right: up(right) };
}

/** A box cut into parts of at most `side` px. */
export function* cut(box, side) {
  for (let top = box.top; top < box.bottom; top += side) {
    for (let left = box.left; left < box.right; left += side) {
      yield clampBox({ top, left, bottom: top + side, right: left + side }, box);
    }
  }
}
