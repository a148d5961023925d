// A real, certified OpenID provider for the tests: node server.mjs CLIENTS, a JSON array of client metadata.
// A required login succeeds at once, as the account of `login_hint`. Consent is given without asking the user.
//   GET /test/events   what has happened so far
import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { Provider, interactionPolicy } from "oidc-provider";

const API = "https://api.example.org";
const ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA", "Ed25519"];
const LOGGED = [
  "pushed_authorization_request.success", "interaction.started", "grant.success", "grant.error", "grant.revoked",
  "backchannel.success", "backchannel.error", "end_session.success",
];

// The provider's advice for deployments would only fill the log.
console.info = console.warn = () => {};

function signingKeys() {
  const kinds = [["rsa", { modulusLength: 2048 }], ["ec", { namedCurve: "P-256" }], ["ed25519", {}]];
  return kinds.map(([kind, options]) => ({
    ...generateKeyPairSync(kind, options).privateKey.export({ format: "jwk" }),
    use: "sig",
  }));
}

function policy() {
  const { Check, base } = interactionPolicy;
  const prompts = base();
  prompts.get("login").checks.add(
    new Check("acr_values", "a stronger login is needed", ({ oidc }) => {
      const asked = oidc.params.acr_values?.split(" ") ?? [];
      const enough = asked.length === 0 || asked.includes(oidc.acr) || oidc.result?.login;
      return enough ? Check.NO_NEED_TO_PROMPT : Check.REQUEST_PROMPT;
    }),
  );
  return prompts;
}

function configuration(clients) {
  return {
    clients,
    jwks: { keys: signingKeys() },
    cookies: { keys: ["a key for the cookies of a test"] },
    claims: { email: ["email", "email_verified"], profile: ["name"] },
    scopes: ["openid", "offline_access", "read"],
    acrValues: ["phr"],
    enabledJWA: { idTokenSigningAlgValues: ALGORITHMS },
    clientAuthMethods: ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"],
    pkce: { required: () => true },
    rotateRefreshToken: true,
    ttl: { AccessToken: 20, Grant: 3600, IdToken: 3600, Interaction: 60, RefreshToken: 3600, Session: 3600 },
    interactions: { policy: policy(), url: (ctx, { uid }) => `/interaction/${uid}` },
    findAccount: (ctx, sub) => ({
      accountId: sub,
      claims: () => ({ sub, name: `${sub} of the provider`, email: `${sub}@example.org`, email_verified: true }),
    }),
    features: {
      devInteractions: { enabled: false },
      backchannelLogout: { enabled: true },
      rpInitiatedLogout: { enabled: true },
      revocation: { enabled: true },
      userinfo: { enabled: true },
      pushedAuthorizationRequests: { enabled: true },
      resourceIndicators: {
        enabled: true,
        useGrantedResource: () => true,
        getResourceServerInfo: () => ({ scope: "read", audience: API, accessTokenFormat: "jwt", accessTokenTTL: 20 }),
      },
    },
    // By default the provider calls no loopback address, but the application of the tests is at one.
    fetch: (url, { dispatcher, ...options }) => fetch(url, options),
  };
}

function login({ params, session }) {
  // "alice 3600": alice logged in an hour ago, unless the request asks for a fresh login.
  const [account, ago] = (params.login_hint ?? "alice").split(" ");
  const now = Math.floor(Date.now() / 1000);
  const ts = params.max_age === undefined && ago ? now - Number(ago) : now;
  return { accountId: session?.accountId ?? account, ts, remember: true, acr: params.acr_values?.split(" ")[0] };
}

async function consent(provider, { grantId, params, prompt, session }) {
  const grant = grantId
    ? await provider.Grant.find(grantId)
    : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  const { missingOIDCScope, missingOIDCClaims, missingResourceScopes } = prompt.details;
  if (missingOIDCScope) grant.addOIDCScope(missingOIDCScope.join(" "));
  if (missingOIDCClaims) grant.addOIDCClaims(missingOIDCClaims);
  for (const [resource, scopes] of Object.entries(missingResourceScopes ?? {})) {
    grant.addResourceScope(resource, scopes.join(" "));
  }
  return { grantId: await grant.save() };
}

async function interact(provider, request, response) {
  const details = await provider.interactionDetails(request, response);
  const result = details.prompt.name === "login" ? { login: login(details) } : { consent: await consent(provider, details) };
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
}

function logOf(provider) {
  const events = [];
  for (const name of LOGGED) {
    provider.on(name, (ctx, ...rest) => {
      const { client, params } = ctx.oidc;
      const told = rest.find((each) => each instanceof Error)?.error_description;
      events.push({ name, client: client?.clientId, grant_type: params?.grant_type, told });
    });
  }
  return events;
}

const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const { port } = server.address();
  const provider = new Provider(`http://127.0.0.1:${port}`, configuration(JSON.parse(process.argv[2])));
  const events = logOf(provider);
  const answer = provider.callback();
  server.on("request", (request, response) => {
    if (request.url === "/test/events") {
      response.setHeader("content-type", "application/json").end(JSON.stringify(events));
    } else if (request.url.startsWith("/interaction/")) {
      interact(provider, request, response).catch((error) => {
        response.writeHead(500).end(String(error));
      });
    } else {
      answer(request, response);
    }
  });
  console.log(`ready ${port}`);
});
