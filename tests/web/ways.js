// The page for files of which only the most is known, and for files that are too large to be sent at once.
import { confirmed, graphql, show } from "./page.js";

const requestForm = `mutation ($bucket: String, $filename: String!, $contentType: String!, $maxSize: BigInt!) {
  requestUploadForm(input: { bucket: $bucket, filename: $filename, contentType: $contentType, maxSize: $maxSize }) {
    result { uploadId fileId url fields }
  }
}`;
const requestParts = `mutation ($bucket: String, $filename: String!, $contentType: String!, $size: BigInt!, $partSize: BigInt) {
  requestMultipartUpload(input: { bucket: $bucket, filename: $filename, contentType: $contentType, size: $size, partSize: $partSize }) {
    result { uploadId fileId }
  }
}`;
const listParts = `mutation ($uploadId: UUID!) {
  listUploadParts(input: { uploadId: $uploadId }) { result { partNumber uploaded } }
}`;
const signParts = `mutation ($uploadId: UUID!, $partNumbers: [Int!]!) {
  signUploadParts(input: { uploadId: $uploadId, partNumbers: $partNumbers }) { result { firstByte size method url headers } }
}`;

async function send(url, options) {
  const answer = await fetch(url, options).catch(() => {
    throw new Error("the store cannot be reached from this page");
  });
  if (!answer.ok) throw new Error(`the store answered ${answer.status}`);
}

async function byForm(bucket, file) {
  const contentType = file.type || "application/octet-stream";
  const asked = await graphql(requestForm, { bucket, filename: file.name, contentType, maxSize: "20000000" });
  const ticket = asked.requestUploadForm.result;
  const form = new FormData();
  for (const [name, value] of Object.entries(ticket.fields)) form.append(name, value);
  // The last field: a store ignores what comes after it.
  form.append("file", file);
  await send(ticket.url, { method: "POST", body: form });
  return confirmed(ticket);
}

// What is missing is all that is sent: called again with the same ticket, it goes on where it was interrupted.
async function sendParts({ uploadId }, file, onProgress) {
  const parts = (await graphql(listParts, { uploadId })).listUploadParts.result;
  let sent = parts.filter(({ uploaded }) => uploaded).length;
  for (const { partNumber } of parts.filter(({ uploaded }) => !uploaded)) {
    const signed = await graphql(signParts, { uploadId, partNumbers: [partNumber] });
    const [{ firstByte, size, method, url, headers }] = signed.signUploadParts.result;
    // The browser sets this one itself, from the slice, and lets no page do it.
    const { "content-length": _, ...settable } = headers;
    const body = file.slice(Number(firstByte), Number(firstByte) + Number(size));
    await send(url, { method, headers: settable, body });
    onProgress(++sent / parts.length);
  }
}

async function inParts(bucket, file, onProgress) {
  const asked = await graphql(requestParts, {
    bucket,
    filename: file.name,
    contentType: file.type || "application/octet-stream",
    size: String(file.size),
    partSize: String(5 << 20),
  });
  const ticket = asked.requestMultipartUpload.result;
  await sendParts(ticket, file, onProgress);
  return confirmed(ticket);
}

show(location.pathname === "/form" ? byForm : inParts);
