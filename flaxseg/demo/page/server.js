// The server segments.

import { decode } from "./png.js";

export async function segment(index, file, { photo }) {
  const query = new URLSearchParams({ model: index, name: file.name, photo: Number(photo) });
  const answer = await post(`segment?${query}`, file);
  const [labels, confidence] = await Promise.all(
    [answer.labels, answer.confidence].map((text) => decode(binary(text))),
  );
  return {
    width: labels.width,
    height: labels.height,
    labels: labels.bytes,
    confidence: confidence.bytes,
    seconds: answer.seconds,
    remarks: answer.remarks,
    photo: answer.photo && new Blob([binary(answer.photo)]),
  };
}

async function post(address, body) {
  let response;
  try {
    response = await fetch(address, { method: "POST", body });
  } catch {
    throw new Error("The server does not answer: is flaxseg demo still running?");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

function binary(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}
