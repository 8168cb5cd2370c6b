#!/usr/bin/env bash
# Builds a release into build/release: wheels, images, chart, bills of materials and checksums. make release runs it.
#
# IMAGES=none builds no images; PYTHON_IMAGE=python@sha256:... pins what they are based on.
# AUDIT=none releases without asking for known vulnerabilities, and says so in RELEASE.txt.
set -euo pipefail
cd "$(dirname "$0")/.."

images=${IMAGES-} audit=${AUDIT-} out=$PWD/build/release
fail() { echo "release: $*" >&2; exit 1; }

python=$PWD/.venv/bin/python
version=$("$python" -c 'import mlaas; print(mlaas.__version__)')
[ -z "$(git status --porcelain)" ] || fail "the checkout has changes that are not committed"
grep -q "^## \[$version\]" CHANGELOG.md || fail "CHANGELOG.md has no section [$version], the version in mlaas/__init__.py"
for engine in docker podman; do
  [ -n "$images" ] || ! "$engine" info >/dev/null 2>&1 || images=$engine
done
[ -n "$images" ] || fail "neither docker nor podman answers; IMAGES=none builds a release without images"

tools=.cache/release-$(sha256sum requirements/release.txt | cut -c1-12)
if [ ! -d "$tools" ]; then
  "$python" -m venv "$tools.new"
  "$tools.new/bin/pip" install -q --disable-pip-version-check --require-hashes -r requirements/release.txt
  mv "$tools.new" "$tools"
fi
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
git archive HEAD | tar -x -C "$source"
rm -rf "$out" && mkdir -p "$out"

if [ "$audit" != none ]; then
  for part in gateway worker client; do
    # It exits with 1 both for vulnerabilities and for packages that it could not look up, so its report decides.
    "$tools/bin/python" -m pip_audit --disable-pip --require-hashes -r "requirements/$part.txt" \
      --format json --progress-spinner off -o "$out/audit-$part.json" || true
    "$python" - "$out/audit-$part.json" "$part" <<'PYTHON' || fail "the audit of requirements/$part.txt did not pass"
import json, pathlib, sys

report, part = pathlib.Path(sys.argv[1]), sys.argv[2]
packages = json.loads(report.read_text())["dependencies"] if report.is_file() else []
unknown = [its["name"] for its in packages if "skip_reason" in its]
flawed = {its["name"]: [flaw["id"] for flaw in its["vulns"]] for its in packages if its.get("vulns")}
if not packages or unknown:
    sys.exit(f"{part}: {len(unknown) or 'all'} packages could not be looked up: {', '.join(unknown)[:200]}")
if flawed:
    sys.exit(f"{part}: {flawed}")
print(f"{part}: {len(packages)} packages without a known vulnerability")
PYTHON
  done
fi

for wheel in . ./client; do
  (cd "$source" && "$python" -m pip wheel -q --no-deps --no-build-isolation -w "$out" "$wheel")
done
for part in gateway worker client; do
  "$tools/bin/python" -m cyclonedx_py requirements "requirements/$part.txt" --output-format JSON \
    --output-reproducible -o "$out/mlaas-$part-$version.cdx.json"
done
helm=$("$python" -c 'from tests.chart.tools import helm; print(helm())')
"$helm" package "$source/deploy/helm" --version "$version" --app-version "$version" --destination "$out" >/dev/null
if [ "$images" != none ]; then
  for part in gateway worker; do
    "$images" build ${PYTHON_IMAGE:+--build-arg "PYTHON_IMAGE=$PYTHON_IMAGE"} \
      -t "mlaas-$part:$version" -f "$source/deploy/$part.Dockerfile" "$source"
    "$images" save "mlaas-$part:$version" | gzip -n >"$out/mlaas-$part-$version.image.tar.gz"
  done
fi

{
  echo "mlaas $version, commit $(git rev-parse HEAD)"
  echo "images: $images${PYTHON_IMAGE:+, based on $PYTHON_IMAGE}"
  echo "audit: ${audit:-passed}"
} >"$out/RELEASE.txt"
(cd "$out" && sha256sum -- * >SHA256SUMS && sha256sum --check --quiet SHA256SUMS)
cat "$out/RELEASE.txt"
du -h "$out"/* | sed "s#$out/##"
