// The application of suite/small_app.py on Node: `node server.mjs NAME REDIS_URL` prints the port that it listens on.
import { randomBytes } from "node:crypto";

import fastifyCookie from "@fastify/cookie";
import fastifySession from "@fastify/session";
import { RedisStore } from "connect-redis";
import express from "express";
import expressSession from "express-session";
import fastify from "fastify";
import { createClient } from "redis";

const CONTENT = { name: "ann", count: 0, cart: ["a1", "b2", "c3"] };
const secret = randomBytes(32).toString("hex");

const pages = {
  "/start": (session) => { if (session) Object.assign(session, CONTENT); return "ann"; },
  "/read": (session) => (session ? session.name : "ann"),
  "/write": (session) => { if (session) session.count += 1; return "ann"; },
};

async function onRedis(url) {
  const client = await createClient({ url }).connect();
  return new RedisStore({ client, prefix: `node:${process.pid}:` });
}

function expressWith(session) {
  const app = express();
  if (session) app.use(session);
  for (const [path, page] of Object.entries(pages)) {
    app.get(path, (request, response) => { response.type("text/plain").send(page(request.session)); });
  }
  return new Promise((resolve) => {
    const server = app.listen(0, "127.0.0.1", () => resolve(server.address().port));
  });
}

async function fastifyWith(options) {
  const app = fastify();
  if (options) {
    await app.register(fastifyCookie);
    await app.register(fastifySession, options);
  }
  for (const [path, page] of Object.entries(pages)) {
    app.get(path, (request, reply) => { reply.type("text/plain").send(page(request.session)); });
  }
  await app.listen({ port: 0, host: "127.0.0.1" });
  return app.server.address().port;
}

// Each as its documentation shows it, over plain HTTP.
const ofExpress = { secret, resave: false, saveUninitialized: false };
const ofFastify = { secret, cookie: { secure: false } };
const servers = {
  "Express": () => expressWith(null),
  "express-session, memory": () => expressWith(expressSession(ofExpress)),
  "express-session, Redis": async (url) => expressWith(expressSession({ ...ofExpress, store: await onRedis(url) })),
  "Fastify": () => fastifyWith(null),
  "fastify-session, memory": () => fastifyWith(ofFastify),
  "fastify-session, Redis": async (url) => fastifyWith({ ...ofFastify, store: await onRedis(url) }),
};

const [name, redis] = process.argv.slice(2);
console.log(await servers[name](redis));
