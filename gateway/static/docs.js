// Calls go to where this page comes from, which may be below a path that a proxy takes away.
const { href } = new URL(".", document.baseURI);

async function show() {
  const spec = await (await fetch("openapi.json")).json();
  SwaggerUIBundle({ spec: { ...spec, servers: [{ url: href }] }, dom_id: "#docs", deepLinking: true });
}

show();
