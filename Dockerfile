# The image as `npm run image` makes it, on the official Node image: for x86-64 and arm64.
#   docker buildx build --platform linux/amd64,linux/arm64 -t chiron .
FROM node:24-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts
COPY tsconfig.json tsconfig.build.json ./
COPY src ./src
RUN npx tsc -p tsconfig.build.json

# Optional packages stay out, but for koffi's own, which holds its binary for this machine.
FROM node:24-slim AS packages
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm pkg delete optionalDependencies && npm install --omit=dev --ignore-scripts --no-audit --no-fund \
  && rm -rf node_modules/@types

FROM gcr.io/distroless/cc-debian12
COPY --from=build /usr/local/bin/node /usr/local/bin/node
WORKDIR /app
COPY --from=packages /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
COPY package.json LICENSE* ./
COPY bin ./bin
COPY crds ./crds
ENV NODE_ENV=production
# The node's parts mount file systems and need root; the chart runs the controller as a user without rights.
ENTRYPOINT ["/usr/local/bin/node"]
