// Makes node_vectors.json with the real npm packages. Not run by the tests. In an empty directory outside the repository:
//   npm install express-session@1.19.0 express@5 cookie-signature@1.2.2
//   OUR_COOKIES='["sid=...", "sid=..."]' NODE_PATH=node_modules node <here>/make_node_vectors.cjs > <here>/node_vectors.json
"use strict";
const path = require("node:path");
const http = require("node:http");
const root = path.resolve(process.env.NODE_PATH);
const pick = (name, within = root) => require(path.join(within, name));
const inner = path.join(root, "express-session", "node_modules");
const signature = pick("cookie-signature"); // the newest
const sessionSignature = pick("cookie-signature", inner); // the one express-session depends on
const cookie = pick("cookie", inner);
const version = (name, within = root) => pick(name + "/package.json", within).version;

const ID = "Zk3v0S1xkq7yT2b-9_uWQm5cJr8LhN4pXaEoIdGfVtY7e0";
const SECRET = "keyboard cat keyboard cat keyboard cat";
const OLD = "a retired secret, a retired secret, retired";
const key = (secret) => (secret.hex === undefined ? secret.text : Buffer.from(secret.hex, "hex"));
const text = (value) => ({ text: value });

const signed = [];
const values = [
  ID, "hello", "", ".", "a.b.c", "tobi is a ferret", "s:nested", "päth/ünï", "日本語", "😀 emoji", "nul\u0000inside",
  "semi;colon, comma=equals", "line\r\nbreak", "x".repeat(3000), "+/=%2B", "\ufeffbom", "\ufffd",
];
for (const value of values) {
  for (const secret of [text(SECRET), text("luna"), text("gehéim 🔑"), { hex: "00ff10807f" + "ab".repeat(30) }]) {
    const made = signature.sign(value, key(secret));
    if (made !== sessionSignature.sign(value, key(secret))) throw new Error("the two versions differ");
    if (signature.unsign(made, key(secret)) !== value) throw new Error("Node does not verify its own");
    signed.push({ value, secret, signed: "s:" + made });
  }
}

const good = signature.sign(ID, SECRET);
const at = good.lastIndexOf(".");
const refused = [
  ["another secret", signature.sign(ID, OLD)], ["truncated", good.slice(0, -1)], ["padded", good + "="],
  ["extended", good + "A"], ["no signature", ID], ["empty signature", ID + "."], ["no value", good.slice(at)],
  ["empty", ""], ["dot only", "."], ["value changed", "Y" + good.slice(1)], ["lower case", good.toLowerCase()],
  ["base64url spelling", good.replace(/\+/g, "-").replace(/\//g, "_") + "-"], ["leading space", " " + good],
  ["trailing space", good + " "], ["two signatures", good + good.slice(at)], ["no dot", ID + good.slice(at + 1)],
].map(([attack, forged]) => {
  if (signature.unsign(forged, SECRET) !== false) throw new Error("Node accepts: " + attack);
  return { attack, signed: "s:" + forged };
});

const headers = values.slice(0, 13).map((value) => {
  const full = "s:" + signature.sign(value, SECRET);
  const pair = cookie.serialize("connect.sid", full);
  if (cookie.parse(pair)["connect.sid"] !== full) throw new Error("Node does not read its own");
  return { value, pair };
});

async function liveServer() {
  const app = pick("express")();
  const session = pick("express-session");
  app.use(session({
    secret: [SECRET, OLD], name: "sid", genid: () => ID, resave: false, saveUninitialized: true,
    cookie: { maxAge: null, sameSite: "lax", path: "/" },
  }));
  app.get("/", (request, response) => response.end(request.sessionID));
  const server = app.listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const get = (sent) => new Promise((resolve, reject) => {
    http.get({ port: server.address().port, host: "127.0.0.1", headers: sent }, (answer) => {
      answer.resume();
      answer.on("end", () => resolve(answer.headers["set-cookie"] ?? []));
    }).on("error", reject);
  });
  const [set] = await get({});
  // express-session does not set a cookie again that it has accepted.
  const ours = process.env.OUR_COOKIES ? JSON.parse(process.env.OUR_COOKIES) : [];
  for (const sent of [set.split(";")[0], ...ours]) {
    const again = await get({ cookie: sent });
    if (again.length !== 0) throw new Error("express-session refuses " + sent);
  }
  const refusedHere = await get({ cookie: set.split(";")[0] + "A" });
  if (refusedHere.length !== 1) throw new Error("the check of acceptance does not bite");
  server.close();
  return { secrets: [SECRET, OLD], id: ID, set_cookie: set, ours };
}

liveServer().then((live) => {
  const made_with = {
    node: process.versions.node, "cookie-signature": version("cookie-signature"),
    "express-session": version("express-session"), "express-session/cookie-signature": version("cookie-signature", inner),
    "express-session/cookie": version("cookie", inner),
  };
  const all = { made_with, secret: SECRET, id: ID, signed, refused, headers, express_session: live };
  process.stdout.write(JSON.stringify(all, null, 1) + "\n");
});
