// A page that uploads what its user chooses, straight to the store.

const request = `mutation ($bucket: String, $filename: String!, $contentType: String!, $size: BigInt!, $sha256: String) {
  requestUploadUrl(input: { bucket: $bucket, filename: $filename, contentType: $contentType, size: $size, sha256: $sha256 }) {
    result { uploadId fileId deduplicated method url headers }
  }
}`;
const confirm = `mutation ($uploadId: UUID!, $fileId: UUID!) {
  confirmUpload(input: { uploadId: $uploadId }) {
    result { status reason }
    query { file(rowId: $fileId) { rowId filename sha256 downloadUrl } }
  }
}`;

export async function graphql(query, variables) {
  const response = await fetch("/graphql", {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${sessionStorage.getItem("token")}` },
    body: JSON.stringify({ query, variables }),
  });
  const { data, errors } = await response.json();
  if (errors) throw new Error(errors[0].message);
  return data;
}

// The digest lets the store refuse other bytes, and spares an upload of bytes that are there already.
async function sha256(file) {
  const digest = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// XMLHttpRequest rather than fetch, which tells nothing of the progress of an upload.
function send(file, { method, url, headers }, onProgress) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    xhr.open(method, url);
    for (const [name, value] of Object.entries(headers)) {
      // The browser sets this one itself, from the file, and lets no page do it.
      if (name !== "content-length") xhr.setRequestHeader(name, value);
    }
    xhr.upload.onprogress = ({ loaded, total }) => onProgress(loaded / total);
    xhr.onload = () => (xhr.status < 300 ? resolve() : reject(new Error(`the store answered ${xhr.status}`)));
    xhr.onerror = () => reject(new Error("the store cannot be reached from this page"));
    xhr.send(file);
  });
}

async function upload(bucket, file, onProgress) {
  const { requestUploadUrl } = await graphql(request, {
    bucket,
    filename: file.name,
    contentType: file.type || "application/octet-stream",
    size: String(file.size),
    sha256: await sha256(file),
  });
  const ticket = requestUploadUrl.result;
  if (!ticket.deduplicated) await send(file, ticket, onProgress);
  return confirmed(ticket);
}

export async function confirmed({ uploadId, fileId }) {
  const { confirmUpload } = await graphql(confirm, { uploadId, fileId });
  const { status, reason } = confirmUpload.result;
  if (status !== "uploaded") throw new Error(`the upload is ${status}: ${reason}`);
  return confirmUpload.query.file;
}

const [bucket, input, bar, status, download] = ["bucket", "file", "bar", "status", "download"].map((id) =>
  document.getElementById(id),
);
export function show(upload) {
  input.onchange = async () => {
    status.textContent = "";
    download.hidden = true;
    try {
      const file = await upload(bucket.value, input.files[0], (share) => (bar.value = share));
      download.href = file.downloadUrl;
      download.hidden = false;
      status.textContent = `uploaded ${file.filename} ${file.sha256}`;
    } catch (error) {
      status.textContent = `failed: ${error.message}`;
    }
  };
}
show(upload);
