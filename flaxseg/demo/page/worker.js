// The network, by onnxruntime-web, beside the page so that this one does not stand still.

import * as ort from "./ort/ort.wasm.min.mjs";

ort.env.wasm.wasmPaths = new URL("ort/", self.location.href).href;

const about = fetch("page.json").then((answer) => answer.json());
const sessions = new Map();

self.addEventListener("message", async ({ data: { number, model, file, name } }) => {
  try {
    const result = await segment(model, file, name, (said) => self.postMessage({ number, said }));
    self.postMessage({ number, result }, [result.labels.buffer, result.confidence.buffer]);
  } catch (error) {
    self.postMessage({ number, error: error.message || String(error) });
  }
});

async function segment(index, file, name, say) {
  const { max_pixels, models } = await about;
  const model = models[index];
  const picture = await read(file, name, max_pixels);
  if (!sessions.has(index)) say("Loading the network …");
  const session = await opened(index, model.file);
  say("Working …");
  const begin = performance.now();
  const { width, height } = seenSize(picture, model.size);
  const pixels = drawn(picture, width, height);
  const images = new ort.Tensor("float32", normalised(pixels, model.preprocess), [1, 3, height, width]);
  const { logits } = await session.run({ images });
  const found = judged(logits.data, width * height);
  const remarks = width === picture.width && height === picture.height ? [] : ["shrunk or stretched"];
  picture.close();
  return { width, height, ...found, remarks, seconds: (performance.now() - begin) / 1000 };
}

function opened(index, file) {
  if (!sessions.has(index)) {
    const session = ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
    session.catch(() => sessions.delete(index));
    sessions.set(index, session);
  }
  return sessions.get(index);
}

/** A picture, upright, its values as they are stored. */
async function read(file, name, maxPixels) {
  let picture;
  try {
    picture = await createImageBitmap(file, {
      imageOrientation: "from-image",
      colorSpaceConversion: "none",
    });
  } catch {
    throw new Error(`${name}: is no picture that this browser reads; replace the file`);
  }
  const area = picture.width * picture.height;
  if (area <= maxPixels) return picture;
  picture.close();
  throw new Error(`${name}: has ${area} pixels, more than the limit of ${maxPixels}`);
}

/** The size at which the network sees a picture: its own, if that is not too large and fits. */
function seenSize({ width, height }, { fixed, multiple, square, smallest, largest }) {
  if (fixed) return { width: fixed[1], height: fixed[0] };
  const scale = Math.min(1, largest / Math.max(width, height));
  const fitting = (side) => {
    const wanted = Math.max(smallest, Math.round(side * scale));
    return Math.ceil(wanted / multiple) * multiple;
  };
  const side = fitting(Math.max(width, height));
  if (square) return { width: side, height: side };
  return { width: fitting(width), height: fitting(height) };
}

/** Red, green, blue and alpha of each pixel, on white paper. */
function drawn(picture, width, height) {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, width, height);
  return context.getImageData(0, 0, width, height).data;
}

/** What the network takes: a plane for each channel, in single precision as in flaxseg. */
function normalised(pixels, { mean, std, channels }) {
  const area = pixels.length / 4;
  const planes = new Float32Array(3 * area);
  for (let channel = 0; channel < 3; channel++) {
    const [less, by] = [Math.fround(mean[channel]), Math.fround(std[channel])];
    const table = Float32Array.from({ length: 256 }, (_, value) =>
      Math.fround(Math.fround(Math.fround(value / 255) - less) / by),
    );
    const start = area * (channels === "bgr" ? 2 - channel : channel);
    for (let i = 0; i < area; i++) planes[start + i] = table[pixels[4 * i + channel]];
  }
  return planes;
}

/** The class with the highest of the logits (K, area) of each pixel, and its probability. */
function judged(logits, area) {
  const labels = new Uint8Array(area);
  const highest = logits.slice(0, area);
  const total = new Float32Array(area);
  const count = logits.length / area;
  for (let k = 1; k < count; k++)
    for (let i = 0, at = k * area; i < area; i++, at++)
      if (logits[at] > highest[i]) [highest[i], labels[i]] = [logits[at], k];
  for (let k = 0; k < count; k++)
    for (let i = 0, at = k * area; i < area; i++, at++) total[i] += Math.exp(logits[at] - highest[i]);
  return { labels, confidence: Uint8Array.from(total, (sum) => Math.round(255 / sum)) };
}
