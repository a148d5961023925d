// A real unstorage server for the tests: node server.mjs PORT DIRECTORY
//   /fs/...      files below the directory
//   /ttl/...     memory that honours the time to live, as a driver with expiry does
//   /locked/...  memory, for those who have the token
//   /...         memory
import { createServer } from "node:http";
import { createStorage, defineDriver } from "unstorage";
import fs from "unstorage/drivers/fs";
import memory from "unstorage/drivers/memory";
import { createStorageServer } from "unstorage/server";

const expiring = defineDriver(() => {
  const kept = new Map();
  const find = (key) => {
    const found = kept.get(key);
    if (found && found.until > Date.now()) return found;
    kept.delete(key);
    return undefined;
  };
  const set = (key, value, options) => {
    kept.set(key, { value, ttl: options.ttl, until: Date.now() + 1000 * (options.ttl ?? 1e9) });
  };
  return {
    hasItem: (key) => find(key) !== undefined,
    getItem: (key) => find(key)?.value ?? null,
    getItemRaw: (key) => find(key)?.value ?? null,
    getMeta: (key) => ({ ttl: find(key)?.ttl }),
    setItem: set,
    setItemRaw: set,
    removeItem: (key) => void kept.delete(key),
    getKeys: () => [...kept.keys()].filter(find),
  };
});

const [port, directory] = process.argv.slice(2);
const storage = createStorage({ driver: memory() });
storage.mount("fs", fs({ base: directory }));
storage.mount("ttl", expiring());
const server = createServer(
  createStorageServer(storage, {
    authorize({ key, event }) {
      if (key.startsWith("locked") && event.node.req.headers.authorization !== "Bearer open-sesame") {
        throw new Error("Unauthorized");
      }
    },
  }).handle,
);
server.listen(Number(port), "127.0.0.1", () => console.log("ready"));
