// Live pictures over a WebSocket: the newest is drawn; others that came meanwhile are skipped.

const RETRY_FIRST_MS = 500;
const RETRY_MOST_MS = 10000;

/**
 * Follows one camera. `onpicture` gets an ImageBitmap that is closed afterwards: draw it at once. `onlink`
 * gets whether the connection is open. While the tab is hidden, or after pause(), no pictures are requested.
 */
export class Preview {
  #socket = null;
  #retryMs = RETRY_FIRST_MS;
  #timer = 0;
  #busy = false;
  #waiting = null;
  #stopped = false;
  #paused = false;
  #onvisible = () => this.#follow();

  constructor(name, kind, onpicture, { paused = false, onlink = () => {} } = {}) {
    this.#paused = paused;
    this.path = `/api/cameras/${encodeURIComponent(name)}/live?kind=${kind}`;
    this.onpicture = onpicture;
    this.onlink = onlink;
    document.addEventListener("visibilitychange", this.#onvisible);
    this.#follow();
  }

  get paused() {
    return this.#paused;
  }

  pause(paused) {
    this.#paused = paused;
    this.#follow();
  }

  stop() {
    this.#stopped = true;
    document.removeEventListener("visibilitychange", this.#onvisible);
    this.#close();
  }

  #close() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #follow() {
    if (this.#stopped || this.#paused || document.hidden) this.#close();
    else if (!this.#socket) this.#open();
  }

  #open() {
    clearTimeout(this.#timer);
    const address = new URL(this.path, location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(address);
    this.#socket = socket;
    socket.binaryType = "blob";
    socket.onmessage = (event) => {
      this.#retryMs = RETRY_FIRST_MS;
      this.#draw(event.data);
    };
    socket.onopen = () => this.onlink(true);
    socket.onclose = () => {
      if (this.#socket !== socket) return;
      this.#socket = null;
      this.onlink(false);
      this.#timer = setTimeout(() => this.#follow(), this.#retryMs * (0.75 + Math.random() / 2));
      this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MOST_MS);
    };
  }

  async #draw(blob) {
    this.#waiting = blob;
    if (this.#busy) return;
    this.#busy = true;
    while (this.#waiting && !this.#stopped) {
      const next = this.#waiting;
      this.#waiting = null;
      try {
        const picture = await createImageBitmap(next);
        if (!this.#stopped) this.onpicture(picture);
        picture.close();
      } catch {
        // A damaged picture is skipped; the next one comes at once.
      }
    }
    this.#busy = false;
  }
}
