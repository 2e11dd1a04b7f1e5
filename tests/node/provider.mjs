// An OpenID Connect provider for the tests: oidc-provider, with one person, one client for browsers and one for programs.
import { createServer } from "node:http";
import Provider from "oidc-provider";

// node provider.mjs ISSUER REDIRECT_URI SECRET ROLES; ROLES: {"who": ["role"]}
const [issuer, redirectUri, secret, roles] = process.argv.slice(2);
const rolesOf = JSON.parse(roles);
const audience = "hybridmed";
const resource = "urn:hybridmed";

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: "worklist",
      client_secret: secret,
      redirect_uris: [redirectUri],
      grant_types: ["authorization_code"],
      response_types: ["code"],
    },
    {
      client_id: "program",
      client_secret: secret,
      redirect_uris: [],
      grant_types: ["client_credentials"],
      response_types: [],
    },
  ],
  cookies: { keys: [secret] },
  ttl: { ClientCredentials: 600, AccessToken: 600, IdToken: 600, Interaction: 600, Session: 600, Grant: 600 },
  pkce: { required: () => true },
  claims: { openid: ["sub"], profile: ["family_name", "given_name", "preferred_username", "roles"] },
  conformIdTokenClaims: false,
  findAccount: (_context, id) => ({
    accountId: id,
    claims: () => ({
      sub: id,
      preferred_username: id,
      family_name: "Curie",
      given_name: "Marie",
      roles: rolesOf[id] ?? [],
    }),
  }),
  extraTokenClaims: (_context, token) => ({ roles: rolesOf[token.clientId] ?? [] }),
  features: {
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: (_context, client) => (client.clientId === "program" ? resource : undefined),
      getResourceServerInfo: () => ({ scope: "read", audience, accessTokenFormat: "jwt" }),
      useGrantedResource: () => true,
    },
  },
});

const server = createServer(provider.callback());
server.listen(Number(new URL(issuer).port), "127.0.0.1", () => console.log("listening"));
