#!/usr/bin/env bash
# Makes what compose.secure.yaml needs in .secrets: certificates, passwords and an API key. Names given: those of the proxy.
#   deploy/tls/make_secrets.sh [mlaas.example.org ...]
set -euo pipefail
cd "$(dirname "$0")/../.."
umask 077
mkdir .secrets || { echo "make_secrets: move .secrets away first, which holds the keys in use" >&2; exit 1; }
cd .secrets

openssl req -x509 -newkey rsa:3072 -nodes -days 3650 -subj "/CN=mlaas authority" -keyout ca.key -out ca.pem 2>/dev/null
issue() { # a name for the files, then the names that the certificate is for
  openssl req -new -newkey rsa:3072 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr" 2>/dev/null
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 825 -out "$1.crt" \
    -extfile <(printf 'subjectAltName=%s\n' "$2") 2>/dev/null
  cat "$1.key" "$1.crt" ca.pem >"$1.pem"
  rm "$1.key" "$1.csr" "$1.crt"
}
issue kafka DNS:kafka
issue proxy "DNS:localhost,IP:127.0.0.1$(printf ',DNS:%s' "$@" | sed 's/^,DNS:$//')"

for user in ADMIN GATEWAY WORKER DLQ; do
  echo "${user}_PASSWORD=$(openssl rand -hex 24)"
done >passwords
openssl rand -hex 32 >api-key
echo "first-client $(tr -d '\n' <api-key | sha256sum | cut -d' ' -f1)" >api-keys

# Containers read these as users of their own. Nobody else gets into the folder.
chmod 644 ca.pem kafka.pem proxy.pem api-keys
echo "made .secrets: give ca.pem to clients, and keep ca.key, which signs certificates, somewhere else"
