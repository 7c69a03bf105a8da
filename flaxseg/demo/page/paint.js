// Maps of bytes as pictures: each of 256 values has a colour.

const MOST_PIXELS = 4e6; // of a canvas: phones refuse large ones
const RAMP = [
  [43, 15, 84],
  [111, 31, 111],
  [185, 53, 86],
  [240, 128, 51],
  [252, 236, 158],
];

/** Colours of the classes: red, green, blue and alpha for each number. */
export function classColors(classes) {
  const colors = new Uint8Array(4 * 256);
  classes.forEach(({ color }, id) => colors.set([...color, 255], 4 * id));
  return colors;
}

/** Colours of confidences, from 0 to 255. */
export function confidenceColors() {
  const colors = new Uint8Array(4 * 256);
  for (let value = 0; value < 256; value++) {
    const place = (value / 255) * (RAMP.length - 1);
    const step = Math.min(Math.floor(place), RAMP.length - 2);
    const mix = RAMP[step].map((low, i) => low + (RAMP[step + 1][i] - low) * (place - step));
    colors.set([...mix, 255], 4 * value);
  }
  return colors;
}

/**
 * A map in these colours, as ImageData.
 *
 * @param source bytes that have the colours.
 * @param labels the classes of the same pixels.
 * @param shown whether pixels of a class are painted.
 */
export function paint(source, labels, width, height, colors, shown) {
  const table = new Uint32Array(colors.buffer);
  const kept = Uint32Array.from({ length: 256 }, (_, id) => (shown(id) ? 0xffffffff : 0));
  const pixels = Uint32Array.from(source, (value, i) => table[value] & kept[labels[i]]);
  return new ImageData(new Uint8ClampedArray(pixels.buffer), width, height);
}

/** A map as a canvas shows it: every few pixels of one that is too large. */
export function sampled(bytes, width, height) {
  const every = Math.ceil(Math.sqrt((width * height) / MOST_PIXELS));
  if (every <= 1) return { bytes, width, height };
  const [columns, rows] = [Math.ceil(width / every), Math.ceil(height / every)];
  const fewer = new Uint8Array(columns * rows);
  for (let y = 0; y < rows; y++)
    for (let x = 0; x < columns; x++) fewer[y * columns + x] = bytes[every * (y * width + x)];
  return { bytes: fewer, width: columns, height: rows };
}
