// Whether anything can be seen on a drawing: the rule by which the API refuses one (generation/images/blankness.py).

/** The longer side is looked at in about so many cells: noise of single pixels is averaged away. */
const CELLS = 192;
/** Of 255: cells that differ by less, in each of red, green and blue, are one colour to whoever looks. */
const CONTRAST_MIN = 16;

/**
 * @param {Uint8ClampedArray} pixels red, green, blue and (ignored) alpha of an opaque picture, by rows
 * @param {number} width
 * @param {number} height
 */
export function isBlank(pixels, width, height) {
  const cell = Math.ceil(Math.max(width, height) / CELLS);
  const low = [255, 255, 255];
  const high = [0, 0, 0];
  for (let top = 0; top < height; top += cell) {
    const bottom = Math.min(top + cell, height);
    for (let left = 0; left < width; left += cell) {
      const right = Math.min(left + cell, width);
      const sums = [0, 0, 0];
      for (let y = top; y < bottom; y += 1) {
        for (let at = (y * width + left) * 4; at < (y * width + right) * 4; at += 4) {
          sums[0] += pixels[at];
          sums[1] += pixels[at + 1];
          sums[2] += pixels[at + 2];
        }
      }
      const count = (bottom - top) * (right - left);
      for (let band = 0; band < 3; band += 1) {
        const mean = Math.round(sums[band] / count);
        if (mean < low[band]) low[band] = mean;
        if (mean > high[band]) high[band] = mean;
        if (high[band] - low[band] >= CONTRAST_MIN) return false;
      }
    }
  }
  return true;
}
