// Keeps the sketchbook usable without a network. Only files that are immutable by address are kept,
// and the page itself as the last resort; nothing of the API ever is.
const CACHE = `llamasketch-${new URL(location.href).searchParams.get("build")}`;
const FALLBACKS = ["/", "/offline"];

addEventListener("install", (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FALLBACKS)).then(() => self.skipWaiting()));
});

addEventListener("activate", (event) => {
  event.waitUntil(caches.keys()
    .then((names) => Promise.all(names.filter((name) => name !== CACHE).map((name) => caches.delete(name))))
    .then(() => self.clients.claim()));
});

async function page(request) {
  try {
    return await fetch(request);
  } catch (error) {
    const path = new URL(request.url).pathname === "/" ? "/" : "/offline";
    const kept = await caches.match(path);
    if (kept) return kept;
    throw error;
  }
}

async function file(request) {
  const kept = await caches.match(request);
  if (kept) return kept;
  const response = await fetch(request);
  if (response.ok) (await caches.open(CACHE)).put(request, response.clone());
  return response;
}

addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== location.origin) return;
  if (request.mode === "navigate") {
    if (!url.pathname.startsWith("/v1/")) event.respondWith(page(request));
  } else if (url.searchParams.has("v") && /^\/(static|modules)\//.test(url.pathname)) event.respondWith(file(request));
});
