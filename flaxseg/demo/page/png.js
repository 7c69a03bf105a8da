// PNG files of one byte a pixel, read and written exactly: a canvas may change what passes it.

const MAGIC = [137, 80, 78, 71, 13, 10, 26, 10];
const CRCS = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/** The bytes of a grey or palette PNG, one a pixel. */
export async function decode(file) {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const [width, height] = [view.getUint32(16), view.getUint32(20)];
  const parts = [];
  for (let start = MAGIC.length; start < file.length; ) {
    const length = view.getUint32(start);
    const kind = String.fromCharCode(...file.subarray(start + 4, start + 8));
    if (kind === "IDAT") parts.push(file.subarray(start + 8, start + 8 + length));
    start += length + 12;
  }
  const lines = await through(new DecompressionStream("deflate"), parts);
  return { width, height, bytes: unfiltered(lines, width, height) };
}

/** A palette PNG, as `flaxseg predict` writes it. */
export async function encode(bytes, width, height, palette) {
  const lines = new Uint8Array(height * (width + 1)); // each begins with its filter: none
  for (let y = 0; y < height; y++)
    lines.set(bytes.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint16(8, 0x0803); // 8 bits, palette
  const colors = new Uint8Array(3 * 256);
  colors.set(palette.flat());
  return new Blob(
    [
      Uint8Array.from(MAGIC),
      chunk("IHDR", new Uint8Array(header.buffer)),
      chunk("PLTE", colors),
      chunk("IDAT", await through(new CompressionStream("deflate"), [lines])),
      chunk("IEND", new Uint8Array()),
    ],
    { type: "image/png" },
  );
}

async function through(transform, parts) {
  const stream = new Blob(parts).stream().pipeThrough(transform);
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Undoes the filters of the lines (PNG, section 9). */
function unfiltered(lines, width, height) {
  const bytes = new Uint8Array(width * height);
  const none = new Uint8Array(width);
  for (let y = 0; y < height; y++) {
    const line = bytes.subarray(y * width, (y + 1) * width);
    const above = y ? bytes.subarray((y - 1) * width, y * width) : none;
    const start = y * (width + 1);
    const predict = FILTERS[lines[start]];
    for (let x = 0; x < width; x++)
      line[x] = lines[start + 1 + x] + predict(x && line[x - 1], above[x], x && above[x - 1]);
  }
  return bytes;
}

const FILTERS = [
  () => 0,
  (left) => left,
  (_, above) => above,
  (left, above) => (left + above) >> 1,
  (left, above, corner) => {
    const guess = left + above - corner;
    const far = [left, above, corner].map((value) => Math.abs(guess - value));
    return far[0] <= far[1] && far[0] <= far[2] ? left : far[1] <= far[2] ? above : corner;
  },
];

function chunk(kind, content) {
  const made = new Uint8Array(content.length + 12);
  const view = new DataView(made.buffer);
  view.setUint32(0, content.length);
  made.set([...kind].map((letter) => letter.charCodeAt(0)), 4);
  made.set(content, 8);
  let crc = ~0;
  for (const byte of made.subarray(4, -4)) crc = CRCS[(crc ^ byte) & 255] ^ (crc >>> 8);
  view.setUint32(made.length - 4, ~crc);
  return made;
}
