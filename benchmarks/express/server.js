// express-session with connect-redis or connect-pg-simple, as their documentation sets them up for production.
import { readFileSync } from "node:fs";
import connectPgSimple from "connect-pg-simple";
import { RedisStore } from "connect-redis";
import express from "express";
import session from "express-session";
import pg from "pg";
import { createClient } from "redis";

const { COOKIE, FIELDS, LIFETIME_SECONDS, SECRET } = JSON.parse(readFileSync(process.env.BENCH_PAYLOAD, "utf8"));

async function openStore(url) {
  if (url.startsWith("postgresql:")) {
    const PgStore = connectPgSimple(session);
    return new PgStore({ pool: new pg.Pool({ connectionString: url }), createTableIfMissing: true });
  }
  const client = createClient({ url });
  await client.connect();
  return new RedisStore({ client });
}

const store = await openStore(process.env.BENCH_STORE);

const app = express();
app.disable("x-powered-by");
app.disable("etag"); // a digest of each body, which the others do not compute
app.get("/public", (request, response) => response.json({ theme: "dark" }));
app.use(
  session({
    name: COOKIE,
    secret: SECRET,
    resave: false,
    saveUninitialized: false,
    cookie: { httpOnly: true, sameSite: "lax", maxAge: LIFETIME_SECONDS * 1000 },
    store,
  }),
);
app.get("/read", (request, response) => response.json({ theme: request.session.theme ?? "light" }));
app.get("/visits", (request, response) => response.json({ visits: request.session.visits ?? 0 }));
app.post("/increment", (request, response) => {
  request.session.visits = (request.session.visits ?? 0) + 1;
  response.json({ visits: request.session.visits });
});
app.post("/login", (request, response, next) => {
  const user = request.query.user;
  request.session.regenerate((error) => {
    if (error) return next(error);
    Object.assign(request.session, FIELDS, { user });
    response.json({ user });
  });
});
app.listen(Number(process.env.BENCH_PORT), "127.0.0.1");
