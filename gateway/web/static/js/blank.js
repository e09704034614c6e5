// Whether anything can be seen on a drawing: the rule by which the API refuses one (generation/images/blankness.py).

/** The longer side is looked at in about so many cells: noise of single pixels is averaged away. */
const CELLS = 192;
/** Of 255: cells that differ by less, in each of red, green and blue, are one colour to whoever looks. */
const CONTRAST_MIN = 16;
/** Of 255, between pixels: a line of one pixel is lost in the cells of a large sheet, and seen all the same. */
const HAIRLINE_CONTRAST_MIN = 48;
/** So many pixels are a line. Fewer are dust. */
const HAIRLINE_PIXELS_MIN = 16;

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
        const value = mean(sums[band], count);
        if (value < low[band]) low[band] = value;
        if (value > high[band]) high[band] = value;
        if (high[band] - low[band] >= CONTRAST_MIN) return false;
      }
    }
  }
  return [0, 1, 2].every((band) => pixelSpread(pixels, band) < HAIRLINE_CONTRAST_MIN);
}

/**
 * Rounded as Pillow rounds it, in whole numbers: a verdict may hang on the last bit.
 * @param {number} sum
 * @param {number} count
 */
function mean(sum, count) {
  const parts = 2 ** 24;
  return Math.floor(((sum + Math.floor(count / 2)) * Math.floor(parts / count)) / parts);
}

/**
 * Between the values that a line's pixels, at least, are as dark as, and as light as.
 * @param {Uint8ClampedArray} pixels
 * @param {number} band
 */
function pixelSpread(pixels, band) {
  const counts = new Uint32Array(256);
  for (let at = band; at < pixels.length; at += 4) counts[pixels[at]] += 1;
  const reached = (/** @type {Uint32Array} */ values) => {
    let left = HAIRLINE_PIXELS_MIN;
    return values.findIndex((count) => (left -= count) <= 0);
  };
  return 255 - reached(counts.slice().reverse()) - reached(counts);
}
