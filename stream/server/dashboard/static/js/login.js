// The log-in page: the token is sent to the server once, and a cookie comes back.

const form = document.getElementById("login");
const token = document.getElementById("token");
const wrong = document.getElementById("wrong");
const enter = document.getElementById("enter");
const show = document.getElementById("show");

function tell(text) {
  wrong.textContent = text.charAt(0).toUpperCase() + text.slice(1);
  wrong.hidden = !text;
  if (text) token.setAttribute("aria-invalid", "true");
  else token.removeAttribute("aria-invalid");
}

/** The page to go to; only one of this server. */
function next() {
  const hash = new URLSearchParams(location.search).get("next") ?? "";
  return hash.startsWith("#/") ? `/${hash}` : "/";
}

show.addEventListener("click", () => {
  const shown = token.type === "text";
  token.type = shown ? "password" : "text";
  show.textContent = shown ? "Show" : "Hide";
  show.setAttribute("aria-pressed", String(!shown));
});

token.addEventListener("input", () => tell(""));

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  enter.disabled = true;
  enter.textContent = "Logging in";
  tell("");
  try {
    const response = await fetch("/api/login", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Requested-With": "gpen-stream" },
      body: JSON.stringify({ token: token.value.trim() }),
      credentials: "same-origin",
    });
    if (response.ok) {
      location.replace(next());
      return;
    }
    const body = await response.json().catch(() => ({}));
    const wait = response.headers.get("retry-after");
    if (response.status === 429) tell(body.error ?? `Too many attempts. Try again in ${wait ?? "some"} seconds.`);
    else tell(body.error ?? "The token is wrong.");
    token.select();
  } catch {
    tell("The server cannot be reached.");
  }
  enter.disabled = false;
  enter.textContent = "Log in";
});
