// Requests to the server, and its errors in one line.

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }

  /** The server could not be reached at all. */
  get offline() {
    return this.status === 0;
  }
}

/** Opens the log-in page, which returns to the present page afterwards. */
export function toLogin() {
  location.assign(`/login?next=${encodeURIComponent(location.hash)}`);
}

async function words(response) {
  const kind = response.headers.get("content-type") ?? "";
  if (kind.includes("json")) {
    const body = await response.json().catch(() => ({}));
    if (typeof body.error === "string") return body.error;
    if (typeof body.detail === "string") return body.detail;
  }
  return `The server answered ${response.status} ${response.statusText}`.trim();
}

/** Calls the API; returns the answer's JSON, or null without JSON. Throws ApiError with the reason. */
export async function call(method, path, body, { signal } = {}) {
  const headers = { Accept: "application/json" };
  if (method !== "GET") headers["X-Requested-With"] = "gpen-stream";
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      signal,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server cannot be reached");
  }
  if (response.status === 401) {
    toLogin();
    throw new ApiError(401, "Log in again");
  }
  if (!response.ok) throw new ApiError(response.status, await words(response));
  if (response.status === 204) return null;
  return (response.headers.get("content-type") ?? "").includes("json") ? response.json() : null;
}

export const get = (path, options) => call("GET", path, undefined, options);
export const post = (path, body = {}, options) => call("POST", path, body, options);
export const put = (path, body) => call("PUT", path, body);
export const remove = (path) => call("DELETE", path);

export const cameraPath = (name) => `/api/cameras/${encodeURIComponent(name)}`;

/** Uploads one file; `onprogress` gets 0..1. Returns the promise of the answer and a function that cancels. */
export function upload(path, file, onprogress) {
  const request = new XMLHttpRequest();
  const answer = new Promise((resolve, reject) => {
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) onprogress(event.loaded / event.total);
    };
    request.onload = () => {
      let body = {};
      try {
        body = JSON.parse(request.responseText);
      } catch {
        // An answer without JSON is reported by its status below.
      }
      if (request.status === 401) toLogin();
      if (request.status < 300) resolve(body);
      else reject(new ApiError(request.status, body.error ?? `The server answered ${request.status}`));
    };
    request.onerror = () => reject(new ApiError(0, "The upload broke off: the server cannot be reached"));
    request.onabort = () => reject(new ApiError(-1, "Upload cancelled"));
    const form = new FormData();
    form.append("file", file, file.name);
    request.open("POST", path);
    request.setRequestHeader("X-Requested-With", "gpen-stream");
    request.send(form);
  });
  return { answer, cancel: () => request.abort() };
}
