"use strict";
/* The page that `aesearch map` writes. */

{
  const given = JSON.parse(document.getElementById("data").textContent);
  document.querySelector("h1").textContent = document.title;
  const view = new MapView(document.querySelector("main"), given);
  window.imageMap = view.map; // for whoever looks at it from outside
}
