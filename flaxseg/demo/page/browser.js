// The visitor's own browser segments: nothing leaves it.

const worker = new Worker("worker.js", { type: "module" });
const waiting = new Map();
let asked = 0;

worker.addEventListener("message", ({ data: { number, said, error, result } }) => {
  const { say, resolve, reject } = waiting.get(number);
  if (said) return say(said);
  waiting.delete(number);
  if (error) reject(new Error(error));
  else resolve(result);
});

worker.addEventListener("error", ({ message }) => {
  for (const { reject } of waiting.values()) reject(new Error(`The worker failed: ${message}`));
  waiting.clear();
});

export function segment(model, file, { say }) {
  const number = ++asked;
  worker.postMessage({ number, model, file, name: file.name });
  return new Promise((resolve, reject) => waiting.set(number, { say, resolve, reject }));
}
