// While the model is being loaded: ask whether it is ready, and go on to the form when it is.

async function ask() {
  const answer = await fetch(new URL("readyz", document.baseURI), { cache: "no-store" }).catch(() => null);
  if (answer?.ok) location.reload();
  else setTimeout(ask, 1000);
}

setTimeout(ask, 1000);
