// What a person who cannot see the page, or cannot use a mouse, would stumble over. Returns lines.
() => {
  const faults = [];
  const seen = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  const where = (element) => {
    const classes = [...element.classList].join(".");
    return `<${element.tagName.toLowerCase()}${element.id ? `#${element.id}` : ""}${classes ? `.${classes}` : ""}>`;
  };
  const named = (element) => {
    const by = element.getAttribute("aria-labelledby");
    if (by) return by.split(" ").every((id) => document.getElementById(id)?.textContent.trim());
    if (element.getAttribute("aria-label")?.trim()) return true;
    if (element.labels?.length) return [...element.labels].some((label) => label.textContent.trim());
    return Boolean(element.innerText?.trim() || element.getAttribute("alt"));
  };
  const control = "a[href], button, input, select, textarea, [role=slider], [role=button], [tabindex='0']";
  for (const element of document.querySelectorAll(control)) {
    if (seen(element) && element.getAttribute("aria-hidden") !== "true" && !named(element)) {
      faults.push(`${where(element)} has no name`);
    }
  }
  for (const image of document.querySelectorAll("img:not([alt]), [role=img]:not([aria-label])")) {
    faults.push(`${where(image)} has no text in its place`);
  }
  for (const element of document.querySelectorAll("[aria-describedby], [aria-labelledby], label[for], output[for]")) {
    const ids = ["aria-describedby", "aria-labelledby", "for"].flatMap(
      (name) => element.getAttribute(name)?.split(" ") ?? [],
    );
    for (const id of ids) if (!document.getElementById(id)) faults.push(`${where(element)} points to no #${id}`);
  }
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  for (const id of new Set(ids)) {
    if (ids.filter((one) => one === id).length > 1) faults.push(`#${id} is there more than once`);
  }
  const headings = [...document.querySelectorAll("h1, h2, h3, h4")].filter(seen);
  if (headings.filter((one) => one.tagName === "H1").length !== 1) faults.push("there is not exactly one h1");
  if (document.querySelectorAll("main").length !== 1) faults.push("there is not exactly one main");
  if (!document.documentElement.lang) faults.push("the page names no language");
  if (document.querySelector("[style]:not([style*=':'])")) faults.push("an empty style");
  if (document.documentElement.scrollWidth > innerWidth) faults.push("the page is wider than the window");

  const colour = (text) => {
    const [red, green, blue, alpha = 1] = text.match(/[\d.]+/g).map(Number);
    return [red, green, blue, alpha];
  };
  const over = (front, back) => front.slice(0, 3).map((part, n) => part * front[3] + back[n] * (1 - front[3]));
  const light = (rgb) => {
    const [red, green, blue] = rgb.map((part) => {
      const value = part / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const layer = colour(getComputedStyle(at).backgroundColor);
      if (layer[3] > 0) layers.push(layer);
      if (layer[3] === 1) break;
    }
    return layers.reverse().reduce((back, layer) => over(layer, back), [255, 255, 255]);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const told = new Set();
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !seen(element) || element.closest(":disabled, .unseen, option, noscript")) continue;
    const style = getComputedStyle(element);
    const back = ground(element);
    const [first, second] = [light(over(colour(style.color), back)), light(back)].sort((a, b) => b - a);
    const ratio = (first + 0.05) / (second + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const line = `${where(element)} "${texts.currentNode.data.trim().slice(0, 30)}" has a contrast of ${ratio.toFixed(2)}`;
    if (ratio < (large ? 3 : 4.5) && !told.has(line)) told.add(line);
  }
  if (matchMedia("(pointer: coarse)").matches) {
    for (const element of document.querySelectorAll("a.button, button, select, .nav a")) {
      const box = element.getBoundingClientRect();
      if (seen(element) && box.width && Math.min(box.width, box.height) < 28) {
        faults.push(`${where(element)} is too small for a finger: ${box.width.toFixed()} x ${box.height.toFixed()}`);
      }
    }
  }
  return [...faults, ...told];
}
